"""Does a cluster stay flat? Many streams for minutes: memory, open files, failed requests.

Starts a local cluster and keeps N clients busy with conversations of one to four turns on the
demonstration model's subjects. Each turn is streamed, and sent back with the next one; now and then
a client leaves in the middle. Every few seconds the resident memory and the open files of each
process are noted. Progress on standard error; the last line on standard output is JSON with a
slope for each process (least squares, after the warm-up) and the failed requests.

    .venv/bin/python bench/mesh/soak.py [--streams 64] [--minutes 10] [--model FOLDER] [--pools 2]
"""

import argparse
import asyncio
import json
import platform
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from expertmesh.cluster.cluster_plan import DEMO_NAME, demo_model_dir
from expertmesh.cluster.detach import start_detached, stop_running
from expertmesh.cluster.machine import usable_cores
from expertmesh.cluster.state import RunDir

MB = 1e6
WARM_UP_SHARE = 0.2
REQUEST_TIMEOUT_S = 300.0
QUESTIONS = (
    "What is {a} + {b}?", "What is {a} - {b}?", "Sort: pear, apple {a}, fig, kiwi {b}",
    "Spell the word number{a}.", "How many r's are in strawberry {a}?", "你好 {a}",
    "Who are you? {b}",
)  # fmt: skip


@dataclass
class Outcomes:
    """How the requests ended."""

    finished: int = 0
    left: int = 0
    """Clients that went away on purpose."""
    tokens: int = 0
    cached_tokens: int = 0
    prompt_tokens: int = 0
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def failed(self) -> int:
        return sum(self.failures.values())


@dataclass
class Usage:
    """One process: (minutes since start, resident MB, open files)."""

    name: str
    process: psutil.Process
    samples: list[tuple[float, float, int]] = field(default_factory=list)

    def sample(self, minutes: float) -> None:
        """Raises psutil.NoSuchProcess if the process has died."""
        rss_mb = self.process.memory_info().rss / MB
        self.samples.append((minutes, rss_mb, self.process.num_fds()))

    def summary(self, begin_minutes: float, end_minutes: float) -> dict[str, float]:
        """The samples under full load: after the warm-up, before the clients stop."""
        late = [one for one in self.samples if begin_minutes <= one[0] <= end_minutes]
        late = late or self.samples[-1:]
        times, memory, files = zip(*late, strict=True)
        return {
            "rss_mb_first": round(memory[0], 1),
            "rss_mb_last": round(memory[-1], 1),
            "rss_mb_max": round(max(memory), 1),
            "rss_mb_per_minute": round(slope(times, memory), 3),
            "open_files_min": min(files),
            "open_files_max": max(files),
            "open_files_per_minute": round(slope(times, files), 3),
        }


def slope(xs: tuple[float, ...], ys: tuple[float, ...]) -> float:
    """Slope of the least-squares line; 0 for fewer than two points."""
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - mean_x) ** 2 for x in xs)
    if not spread:
        return 0.0
    return sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread


async def client(
    http: httpx.AsyncClient, model: str, numbers: random.Random, until_s: float, outcomes: Outcomes
) -> None:
    """Hold conversations, one after another, until the time is up."""
    while time.monotonic() < until_s:
        messages: list[dict[str, Any]] = []
        for _ in range(numbers.randint(1, 4)):
            question = numbers.choice(QUESTIONS)
            question = question.format(a=numbers.randrange(9999), b=numbers.randrange(9999))
            messages.append({"role": "user", "content": question})
            body = {
                "model": model,
                "messages": messages,
                "max_tokens": numbers.choice((16, 64, 200)),
                "temperature": numbers.choice((0, 1)),
                "stream": True,
                "stream_options": {"include_usage": True},
            }
            leaves_after = numbers.randint(0, 20) if numbers.random() < 0.05 else None
            try:
                answer = await ask(http, body, leaves_after, outcomes)
            except (httpx.HTTPError, RuntimeError) as error:
                outcomes.failures[f"{type(error).__name__}: {error}"[:200]] += 1
                break
            if answer is None or time.monotonic() >= until_s:
                break
            messages.append(answer)


async def ask(
    http: httpx.AsyncClient, body: dict[str, Any], leaves_after: int | None, outcomes: Outcomes
) -> dict[str, Any] | None:
    """The assistant's message; None when this client left after so many events."""
    message = {"role": "assistant", "content": "", "reasoning_content": ""}
    events = 0
    async with http.stream("POST", "/v1/chat/completions", json=body) as reply:
        if reply.status_code != 200:
            await reply.aread()
            raise RuntimeError(f"{reply.status_code}: {reply.text}")
        async for line in reply.aiter_lines():
            if leaves_after is not None and events >= leaves_after:
                outcomes.left += 1
                return None
            if line == "data: [DONE]":
                outcomes.finished += 1
                return message
            if not line.startswith("data: "):
                continue
            events += 1
            event = json.loads(line[6:])
            if "error" in event:
                raise RuntimeError(f"in the stream: {event['error']['message']}")
            if usage := event.get("usage"):
                outcomes.tokens += usage["completion_tokens"]
                outcomes.prompt_tokens += usage["prompt_tokens"]
                outcomes.cached_tokens += usage["prompt_tokens_details"]["cached_tokens"]
            for choice in event["choices"]:
                for name in ("content", "reasoning_content"):
                    message[name] += choice["delta"].get(name) or ""
    raise RuntimeError("the stream ended without [DONE]")


async def watch(usages: list[Usage], outcomes: Outcomes, options: argparse.Namespace) -> None:
    """Sample until cancelled."""
    started_s = time.monotonic()
    while True:
        minutes = (time.monotonic() - started_s) / 60
        for usage in usages:
            usage.sample(minutes)
        memory = ", ".join(f"{one.name} {one.samples[-1][1]:.0f}" for one in usages)
        say(f"{minutes:5.1f} min: {outcomes.finished} done, {outcomes.failed} failed; MB: {memory}")
        await asyncio.sleep(options.sample_s)


async def load(url: str, usages: list[Usage], options: argparse.Namespace) -> Outcomes:
    outcomes = Outcomes()
    until_s = time.monotonic() + 60 * options.minutes
    limits = httpx.Limits(max_connections=options.streams)
    watcher = asyncio.create_task(watch(usages, outcomes, options))
    async with httpx.AsyncClient(
        base_url=url, timeout=REQUEST_TIMEOUT_S, limits=limits, trust_env=False
    ) as http:
        clients = [
            asyncio.create_task(
                client(http, options.name, random.Random(number), until_s, outcomes)
            )
            for number in range(options.streams)
        ]
        # A process that has died ends the run: the watcher raises.
        await asyncio.wait({watcher, asyncio.gather(*clients)}, return_when="FIRST_COMPLETED")
        if watcher.done():
            watcher.result()
    watcher.cancel()
    return outcomes


def run(options: argparse.Namespace) -> dict[str, Any]:
    """The whole soak; the cluster is always stopped."""
    with tempfile.TemporaryDirectory(prefix="expertmesh-soak-") as folder:
        run_dir = RunDir(Path(folder))
        arguments = ["--model", str(options.model), "--http-port", "0", "--background"]
        arguments += ["--run-dir", folder, "--served-model-name", options.name]
        arguments += [
            "--kv-memory",
            options.kv_memory,
            "--pools",
            str(options.pools),
            "--max-concurrent",
            str(2 * options.streams),
        ]
        state = start_detached(run_dir, arguments, {}, lambda line: None)
        try:
            processes = {one["name"]: one["pid"] for one in state["services"]}
            usages = [Usage(name, psutil.Process(pid)) for name, pid in processes.items()]
            outcomes = asyncio.run(load(state["url"], usages, options))
        finally:
            clean = stop_running(run_dir, state, timeout_s=30)
    warm_up = WARM_UP_SHARE * options.minutes
    return {
        "bench": "soak",
        "model": options.name,
        "streams": options.streams,
        "minutes": options.minutes,
        "warm_up_minutes": warm_up,
        "pools": options.pools,
        "cores": usable_cores(),
        "machine": platform.machine(),
        "requests_finished": outcomes.finished,
        "requests_failed": outcomes.failed,
        "clients_left": outcomes.left,
        "failures": dict(outcomes.failures.most_common(5)),
        "generated_tokens": outcomes.tokens,
        "tokens_per_s": round(outcomes.tokens / (60 * options.minutes), 1),
        "cached_share_of_prompt_tokens": round(
            outcomes.cached_tokens / max(1, outcomes.prompt_tokens), 3
        ),
        "stopped_cleanly": clean,
        "processes": {usage.name: usage.summary(warm_up, options.minutes) for usage in usages},
    }


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, help="default: the bundled demonstration model")
    parser.add_argument("--streams", type=int, default=64, help="clients at once")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--pools", type=int, default=2)
    parser.add_argument(
        "--kv-memory", default="128MiB", help="small, so that every page is used in the warm-up"
    )
    parser.add_argument("--sample-s", type=float, default=5.0, help="seconds between samples")
    options = parser.parse_args()
    options.name = options.model.absolute().name if options.model else DEMO_NAME
    options.model = (options.model or demo_model_dir()).absolute()
    print(json.dumps(run(options)))


if __name__ == "__main__":
    main()
