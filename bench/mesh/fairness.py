"""How long does a client wait while another sends as many costly requests as it may?

Starts an attention service with its experts, and a gateway with two keys. One key asks for a choice
of two words and for short chats, first alone, then while the other key is at its admission limit
with schemas that are refused for their cost (each a new one) and prompts of 7 MB. Each client is a
separate process. Progress on standard error; the last line on standard output is JSON.

    .venv/bin/python bench/mesh/fairness.py [--seconds 60] [--tree CHECKOUT]
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import math
import os
import platform
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from expertmesh.cluster.cluster_plan import demo_model_dir
from expertmesh.cluster.machine import usable_cores

ROOT = Path(__file__).resolve().parents[2]
BUSY_KEY, QUIET_KEY = "the-busy-client", "the-quiet-client"
MODEL = "demo"
START_S = 60.0
REQUEST_TIMEOUT_S = 300.0
BUSY_STREAMS = 64
"""As many as one key may have in flight."""
PAUSE_S = 0.05
"""The pause of an impolite client after a refusal."""
LONG_BYTES = 7_000_000
ALLOWED_FACTOR, ALLOWED_EXTRA_MS = 2.0, 100.0
"""The promise for p99: at most so many times the quiet p99, plus this."""


def quiet_bodies() -> dict[str, tuple[str, dict[str, Any]]]:
    """kind -> (path, body)."""
    plain = {"model": MODEL, "temperature": 0, "max_tokens": 8}
    choice = {**plain, "prompt": "Yes or no?", "structured_outputs": {"choice": ["yes", "no"]}}
    chat = {**plain, "messages": [{"role": "user", "content": "What is 3 + 4?"}]}
    return {"choice": ("/v1/completions", choice), "chat": ("/v1/chat/completions", chat)}


def busy_requests() -> list[tuple[str, bytes]]:
    """(path, body) of the costliest requests; {N} in a body is a new number each time."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    patterns = [{"type": "string", "pattern": f".*{c}.*{{N}}"} for c in letters]
    schema = {"allOf": patterns}
    text = "the thing said hello to everything in the hall "
    long = (text * (LONG_BYTES // len(text) + 1))[:LONG_BYTES]
    # As many items as arguments may have: with more they would not be read.
    items = [[i, "x" * 90] for i in range(65_000)]
    arguments = json.dumps({"a": items})
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [call]}]
    answer = {"role": "tool", "tool_call_id": "c", "content": "y"}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    bodies: list[tuple[str, dict[str, Any]]] = [
        ("/v1/completions", {"prompt": ["x"] * 16, "structured_outputs": {"json": schema}}),
        ("/v1/chat/completions", {"messages": turns[:1], "response_format": form}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": long}]}),
        ("/v1/chat/completions", {"messages": [*turns, answer]}),
    ]
    return [
        (path, json.dumps({"model": MODEL, "max_tokens": 4, **body}).encode())
        for path, body in bodies
    ]


async def be_busy(url: str, seconds: float, outcomes: Counter[str]) -> None:
    """Run the busy client for so long, counting statuses by kind of request."""
    requests = busy_requests()
    until_s, numbers = time.monotonic() + seconds, itertools.count()

    async def one(http: httpx.AsyncClient, kind: int) -> None:
        path, body = requests[kind]
        while time.monotonic() < until_s:
            own = body.replace(b"{N}", str(next(numbers)).encode())
            try:
                status = (await http.post(path, content=own)).status_code
            except httpx.HTTPError as error:
                outcomes[f"{kind} {type(error).__name__}"] += 1
                status = 0
            else:
                outcomes[f"{kind} {status}"] += 1
            if status != 200:
                await asyncio.sleep(PAUSE_S)

    async with client(url, BUSY_KEY, BUSY_STREAMS) as http:
        streams = [one(http, number % len(requests)) for number in range(BUSY_STREAMS)]
        async with asyncio.timeout(seconds + 5):
            await asyncio.gather(*streams)


async def be_quiet(url: str, seconds: float) -> dict[str, list[float]]:
    """Run the quiet client for so long: milliseconds of each request by kind. Raises on errors."""
    until_s = time.monotonic() + seconds
    times_ms: dict[str, list[float]] = {kind: [] for kind in quiet_bodies()}
    async with client(url, QUIET_KEY, len(times_ms)) as http:
        while time.monotonic() < until_s:
            for kind, (path, body) in quiet_bodies().items():
                started_s = time.perf_counter()
                answer = await http.post(path, json=body)
                times_ms[kind].append(1e3 * (time.perf_counter() - started_s))
                if answer.status_code != 200:
                    raise RuntimeError(f"{kind}: {answer.status_code}: {answer.text[:300]}")
            await asyncio.sleep(random.uniform(0.0, 0.1))
    return times_ms


def client(url: str, key: str, connections: int) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    limits = httpx.Limits(max_connections=connections)
    return httpx.AsyncClient(
        base_url=url, headers=headers, timeout=REQUEST_TIMEOUT_S, limits=limits, trust_env=False
    )


def p99(values: list[float]) -> float:
    return sorted(values)[math.ceil(0.99 * len(values)) - 1]


def summary(times_ms: dict[str, list[float]]) -> dict[str, Any]:
    return {
        kind: {
            "requests": len(values),
            "p50_ms": round(statistics.median(values), 1),
            "p99_ms": round(p99(values), 1),
            "max_ms": round(max(values), 1),
        }
        for kind, values in times_ms.items()
    }


def start_services(options: argparse.Namespace, folder: Path) -> tuple[str, list[subprocess.Popen]]:
    """(the gateway's URL, the processes); both are ready."""
    environment = {**os.environ, "PYTHONPATH": str(options.tree), "EXPERTMESH_LOG_LEVEL": "warning"}
    ports = [free_port() for _ in range(3)]
    attention = f"127.0.0.1:{ports[0]}"
    common = ["--model", str(options.model)]
    flags = {
        "attention_svc": ["--transport", "in_process", "--listen", attention,
                          "--ops-listen", f"127.0.0.1:{ports[1]}", "--threads", "1"],
        "gateway": ["--attention", attention, "--listen", f"127.0.0.1:{ports[2]}",
                    "--served-model-name", MODEL, "--api-key", BUSY_KEY, "--api-key", QUIET_KEY],
    }  # fmt: skip
    processes: list[subprocess.Popen] = []
    url = f"http://127.0.0.1:{ports[2]}"
    try:
        for module, own in flags.items():
            with (folder / f"{module}.log").open("wb") as log:
                command = [sys.executable, "-P", "-m", module, *common, *own]
                processes.append(
                    subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
                )
        until_s = time.monotonic() + START_S
        while not is_ready(url):
            if time.monotonic() > until_s or any(one.poll() is not None for one in processes):
                raise RuntimeError((folder / "gateway.log").read_text()[-2000:])
            time.sleep(0.2)
    except BaseException:
        stop(processes)
        raise
    return url, processes


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=1.0, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def stop(processes: list[subprocess.Popen]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()


def run(options: argparse.Namespace) -> dict[str, Any]:
    """The whole benchmark; the services are always stopped."""
    with tempfile.TemporaryDirectory(prefix="expertmesh-bench-") as folder:
        url, processes = start_services(options, Path(folder))
        try:
            asyncio.run(be_quiet(url, 2.0))  # the first grammar starts the compiling process
            quiet = asyncio.run(be_quiet(url, options.seconds))
            say(f"quiet: {summary(quiet)}")
            command = [sys.executable, __file__, "--busy", url, "--seconds"]
            lasts_s = options.seconds + 10
            with subprocess.Popen([*command, str(lasts_s)], stdout=subprocess.PIPE) as busy:
                try:
                    time.sleep(5)  # until it is at its limit
                    beside = asyncio.run(be_quiet(url, options.seconds))
                    told, _ = busy.communicate(timeout=lasts_s)
                finally:
                    busy.kill()
        finally:
            stop(processes)
    say(f"beside the busy client: {summary(beside)}")
    allowed = {
        kind: ALLOWED_FACTOR * p99(values) + ALLOWED_EXTRA_MS for kind, values in quiet.items()
    }
    return {
        "bench": "fairness",
        "seconds": options.seconds,
        "cores": usable_cores(),
        "machine": platform.machine(),
        "quiet": summary(quiet),
        "beside_busy": summary(beside),
        "busy_outcomes": json.loads(told),
        "allowed_p99_ms": {kind: round(value, 1) for kind, value in allowed.items()},
        "fair": all(p99(values) <= allowed[kind] for kind, values in beside.items()),
    }


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, help="default: the bundled demonstration model")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each of the two parts")
    parser.add_argument("--tree", type=Path, default=ROOT, help="checkout whose services to ask")
    parser.add_argument("--busy", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.model = options.model or demo_model_dir()
    if options.busy:
        os.nice(10)  # its own work is not what is measured
        outcomes = Counter[str]()
        with contextlib.suppress(TimeoutError):  # some are not answered by then
            asyncio.run(be_busy(options.busy, options.seconds, outcomes))
        print(json.dumps(outcomes))
        return
    print(json.dumps(run(options)))


if __name__ == "__main__":
    main()
