"""How long are the gaps between one client's tokens while another uses a schema of thousands?

Starts an attention service with its experts, and a gateway with two keys. One key streams plain
completions, first alone, then while the other sends the same schema of 3,000 optional properties
again and again, 8 requests at a time: a mask takes 40 to 70 ms, and so does taking a token.
Progress on standard error; the last line on standard output is JSON.

    .venv/bin/python bench/mesh/masks.py [--seconds 20] [--tree CHECKOUT]
"""

import argparse
import asyncio
import json
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

from bench.mesh.fairness import (
    BUSY_KEY,
    MODEL,
    QUIET_KEY,
    ROOT,
    client,
    p99,
    say,
    start_services,
    stop,
)  # fmt: skip
from expertmesh.cluster.cluster_plan import demo_model_dir
from expertmesh.cluster.machine import usable_cores

STREAMS = 8
TOKENS = 60
PROPERTIES = 3_000
PLAIN: dict[str, Any] = {"model": MODEL, "temperature": 0, "prompt": "Once upon a time"}


async def gaps_ms(url: str, seconds: float) -> list[float]:
    """The gaps between the events of streams, one stream after another, for so long."""
    body = {**PLAIN, "max_tokens": TOKENS, "ignore_eos": True, "stream": True}
    until_s, gaps = time.monotonic() + seconds, []
    async with client(url, QUIET_KEY, 1) as http:
        while time.monotonic() < until_s:
            last_s = None
            async with http.stream("POST", "/v1/completions", json=body) as answer:
                answer.raise_for_status()
                async for line in answer.aiter_lines():
                    if line.startswith("data: {"):
                        now_s = time.perf_counter()
                        if last_s is not None:
                            gaps.append(1e3 * (now_s - last_s))
                        last_s = now_s
    return gaps


async def be_busy(url: str, seconds: float) -> Counter[str]:
    """Ask for the schema in so many streams, counting statuses."""
    schema = {
        "type": "object",
        "properties": {f"p{i}": {"type": "string"} for i in range(PROPERTIES)},
    }
    body = {**PLAIN, "max_tokens": 40, "structured_outputs": {"json": schema}}
    content, outcomes = json.dumps(body).encode(), Counter[str]()
    until_s = time.monotonic() + seconds

    async def one(http: httpx.AsyncClient) -> None:
        while time.monotonic() < until_s:
            reply = await http.post("/v1/completions", content=content)
            outcomes[str(reply.status_code)] += 1

    async with client(url, BUSY_KEY, STREAMS) as http:
        await asyncio.gather(*(one(http) for _ in range(STREAMS)))
    return outcomes


def summary(gaps: list[float]) -> dict[str, float]:
    return {
        "gaps": len(gaps),
        "p50_ms": round(statistics.median(gaps), 2),
        "p99_ms": round(p99(gaps), 2),
        "max_ms": round(max(gaps), 1),
    }


def run(options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="expertmesh-bench-") as folder:
        url, processes = start_services(options, Path(folder))
        try:
            asyncio.run(gaps_ms(url, 2.0))
            asyncio.run(be_busy(url, 0.1))  # the schema is compiled once
            quiet = asyncio.run(gaps_ms(url, options.seconds))
            say(f"quiet: {summary(quiet)}")
            command = [sys.executable, __file__, "--busy", url, "--seconds"]
            lasts_s = str(options.seconds + 2)
            with subprocess.Popen([*command, lasts_s], stdout=subprocess.PIPE) as busy:
                try:
                    time.sleep(2)
                    beside = asyncio.run(gaps_ms(url, options.seconds))
                    told, _ = busy.communicate(timeout=120)
                finally:
                    busy.kill()
        finally:
            stop(processes)
    say(f"beside the schemas: {summary(beside)}")
    return {
        "bench": "masks",
        "seconds": options.seconds,
        "cores": usable_cores(),
        "quiet": summary(quiet),
        "beside_schemas": summary(beside),
        "busy_outcomes": json.loads(told),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, help="default: the bundled demonstration model")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each of the two parts")
    parser.add_argument("--tree", type=Path, default=ROOT, help="checkout whose services to ask")
    parser.add_argument("--busy", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.model = options.model or demo_model_dir()
    if options.busy:
        print(json.dumps(asyncio.run(be_busy(options.busy, options.seconds))))
        return
    print(json.dumps(run(options)))


if __name__ == "__main__":
    main()
