"""How fast does the whole system answer over HTTP, and what does the split cost?

Starts two local clusters on the same model, one split into pools and one with the
experts inside the attention process, and asks both in turn, round by round, at
several numbers of concurrent streams. Progress on standard error; the last line on
standard output is JSON with medians over the rounds.

    .venv/bin/python bench/mesh/serve.py [--model FOLDER] [--pools 2] [--rounds 3] [--tokens 64]
"""

import argparse
import asyncio
import json
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from expertmesh.cluster.cluster_plan import DEMO_NAME, demo_model_dir
from expertmesh.cluster.detach import start_detached, stop_running
from expertmesh.cluster.machine import usable_cores
from expertmesh.cluster.state import RunDir

MODES = ("split", "in_process")
REQUEST_TIMEOUT_S = 300.0


@dataclass
class Timing:
    """One stream, in seconds from sending the request."""

    first_s: float
    last_s: float
    num_tokens: int

    @property
    def inter_token_s(self) -> float:
        return (self.last_s - self.first_s) / max(1, self.num_tokens - 1)


@dataclass
class Cell:
    """All measurements of one (mode, number of streams)."""

    ttft_s: list[float] = field(default_factory=list)
    inter_token_s: list[float] = field(default_factory=list)
    tokens_per_s: list[float] = field(default_factory=list)
    """One per round, over all streams."""

    def add(self, timings: Sequence[Timing], wall_s: float) -> None:
        self.ttft_s += [timing.first_s for timing in timings]
        self.inter_token_s += [timing.inter_token_s for timing in timings]
        self.tokens_per_s.append(sum(timing.num_tokens for timing in timings) / wall_s)

    def summary(self) -> dict[str, float]:
        return {
            "ttft_ms_p50": round(1000 * statistics.median(self.ttft_s), 2),
            "ttft_ms_max": round(1000 * max(self.ttft_s), 2),
            "inter_token_ms_p50": round(1000 * statistics.median(self.inter_token_s), 3),
            "inter_token_ms_max": round(1000 * max(self.inter_token_s), 3),
            "tokens_per_s": round(statistics.median(self.tokens_per_s), 1),
        }


async def stream_one(client: httpx.AsyncClient, body: dict[str, Any]) -> Timing:
    """Send one request and time its pieces. Raises on any error of the server."""
    started = time.perf_counter()
    first_s = last_s = 0.0
    num_tokens = 0
    async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        if answer.status_code != 200:
            await answer.aread()
            raise RuntimeError(f"{answer.status_code}: {answer.text[:300]}")
        async for line in answer.aiter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line[6:])
            if "error" in event:
                raise RuntimeError(f"the stream failed: {event['error']}")
            if event.get("usage"):
                num_tokens = event["usage"]["completion_tokens"]
            delta = event["choices"][0]["delta"] if event["choices"] else {}
            if delta.get("content") or delta.get("reasoning_content") or delta.get("tool_calls"):
                last_s = time.perf_counter() - started
                first_s = first_s or last_s
    if num_tokens != body["max_tokens"]:
        raise RuntimeError(f"expected {body['max_tokens']} tokens, usage says {num_tokens}")
    return Timing(first_s=first_s, last_s=last_s, num_tokens=num_tokens)


async def measure(url: str, model: str, streams: int, num_tokens: int, seed: int) -> tuple:
    """(timings, wall seconds) of `streams` requests sent at once; prompts differ."""
    numbers = random.Random(seed)
    bodies = [
        {
            "model": model,
            "messages": [
                {
                    "role": "user",
                    "content": f"What is {numbers.randrange(9999)} + {numbers.randrange(9999)}?",
                }
            ],
            "temperature": 0,
            "max_tokens": num_tokens,
            "ignore_eos": True,  # every stream is equally long
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        for _ in range(streams)
    ]
    limits = httpx.Limits(max_connections=streams)
    async with httpx.AsyncClient(
        base_url=url, timeout=REQUEST_TIMEOUT_S, limits=limits, trust_env=False
    ) as client:
        started = time.perf_counter()
        timings = await asyncio.gather(*(stream_one(client, body) for body in bodies))
        return timings, time.perf_counter() - started


def start_clusters(
    options: argparse.Namespace, folder: Path
) -> dict[str, tuple[RunDir, dict[str, Any]]]:
    """mode -> (run folder, state) of a ready cluster."""
    clusters: dict[str, tuple[RunDir, dict[str, Any]]] = {}
    try:
        for mode in MODES:
            run_dir = RunDir(folder / mode)
            run_dir.create()
            arguments = ["--model", str(options.model), "--http-port", "0", "--background"]
            arguments += ["--run-dir", str(run_dir.path), "--dtype", options.dtype]
            arguments += ["--served-model-name", options.name]
            arguments += ["--threads", str(options.threads)] if options.threads else []
            arguments += (
                ["--in-process"] if mode == "in_process" else ["--pools", str(options.pools)]
            )
            started = time.perf_counter()
            clusters[mode] = (run_dir, start_detached(run_dir, arguments, {}, lambda line: None))
            say(f"{mode}: ready in {time.perf_counter() - started:.1f} s")
    except BaseException:
        stop_clusters(clusters)
        raise
    return clusters


def stop_clusters(clusters: dict[str, tuple[RunDir, dict[str, Any]]]) -> None:
    for run_dir, state in clusters.values():
        stop_running(run_dir, state, timeout_s=30)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """The whole benchmark; the clusters are always stopped."""
    cells = {(mode, streams): Cell() for streams in options.streams for mode in MODES}
    with tempfile.TemporaryDirectory(prefix="expertmesh-bench-") as folder:
        clusters = start_clusters(options, Path(folder))
        try:
            urls = {mode: state["url"] for mode, (_, state) in clusters.items()}
            for url in urls.values():  # first calls compile and allocate
                asyncio.run(measure(url, options.name, 2, options.tokens, seed=-1))
            for round_idx in range(options.rounds):
                for streams in options.streams:
                    # The order changes in every round.
                    for mode in MODES if round_idx % 2 == 0 else MODES[::-1]:
                        seed = 1000 * round_idx + streams
                        timings, wall_s = asyncio.run(
                            measure(urls[mode], options.name, streams, options.tokens, seed)
                        )
                        cells[mode, streams].add(timings, wall_s)
                        speed = cells[mode, streams].tokens_per_s[-1]
                        say(
                            f"round {round_idx + 1}: {mode}, {streams} streams: "
                            f"{speed:.1f} tokens/s"
                        )
        finally:
            stop_clusters(clusters)
    ratio = {
        str(streams): round(
            statistics.median(cells["split", streams].tokens_per_s)
            / statistics.median(cells["in_process", streams].tokens_per_s),
            3,
        )
        for streams in options.streams
    }
    return {
        "bench": "serve",
        "model": options.name,
        "pools": options.pools,
        "dtype": options.dtype,
        "rounds": options.rounds,
        "tokens_per_stream": options.tokens,
        "cores": usable_cores(),
        "machine": platform.machine(),
        "results": [
            {"mode": mode, "streams": streams, **cell.summary()}
            for (mode, streams), cell in cells.items()
        ],
        "split_over_in_process_tokens_per_s": ratio,
    }


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, help="default: the bundled demonstration model")
    parser.add_argument("--pools", type=int, default=2)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--threads", type=int, help="default: the cores divided among processes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=64, help="generated tokens of each stream")
    parser.add_argument(
        "--streams", type=lambda text: [int(part) for part in text.split(",")], default=[1, 8, 32]
    )
    options = parser.parse_args()
    options.name = options.model.absolute().name if options.model else DEMO_NAME
    options.model = (options.model or demo_model_dir()).absolute()
    print(json.dumps(run(options)))


if __name__ == "__main__":
    main()
