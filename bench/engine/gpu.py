"""How fast is M2 on one GPU, from requests over gRPC to tokens? Weights from a seed.

    .venv/bin/python bench/engine/gpu.py [--parts full,prefill,slope] [--seconds 2]

Parts, each an attention service of its own with all experts in it:

- `full`: all 62 layers, experts int4 in groups of 128, linears fp8. Tokens a second with B streams
  at a context, greedy and sampled, and a step's time beside the device's own time for it.
- `prefill`: of the same, 8,000 tokens, and a prompt of which all but 100 tokens are cached.
- `slope`: fp8 with 8 and 24 layers: microseconds a layer by the difference, of steps and of the
  device in them, and prefill.

A prompt is computed once before it is timed, so that streams decode together from the start.
Progress is on standard error; the last line on standard output is JSON.
"""

import argparse
import asyncio
import itertools
import json
import random
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import httpx

import rpc  # noqa: F401  sets grpc's environment before grpc is imported

import grpc.aio  # isort: skip

import torch

from bench.engine.real_width import REAL_WIDTH
from bench.kernels.gpu_experts import copy_rate
from expertmesh.cluster.process import ServiceProcess
from expertmesh.cluster.spec import ServiceSpec
from protos import attention_pb2, attention_pb2_grpc

M2 = {**REAL_WIDTH, "num_hidden_layers": 62, "num_local_experts": 256, "vocab_size": 200_064}
START_TIMEOUT_S = 300.0
FULL = ((1, 100), (8, 100), (1, 4096), (16, 4096), (64, 1024))
"""Streams, and positions of context."""
FULL_FORMATS = ("--expert-dtype", "int4_g128", "--linear-dtype", "fp8")
SLOPE_ROWS = (1, 8, 32, 64)
SLOPE_FORMATS = ("--expert-dtype", "fp8", "--linear-dtype", "fp8")
SAMPLED = {"temperature": 1.0, "top_p": 0.95, "top_k": 40, "seed": 5}
GREEDY = {"top_p": 1.0}
_DEVICE = re.compile(r"^expertmesh_device_step_seconds_(sum|count) (\S+)", re.M)


class Service:
    """An attention service on this machine's GPU."""

    def __init__(self, folder: Path, layers: int, step_rows: int, *flags: str):
        model = folder / f"m2-{layers}"
        if not model.exists():
            _write_model(model, layers)
        ports = ("--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0")
        how = ("--load", "random:7", "--transport", "in_process", "--device", "cuda")
        fixed = ("--model", str(model), "--dtype", "bf16")
        limits = (
            *("--max-running", "64", "--max-batch-tokens", str(step_rows)),
            *("--gpu-memory", "0.98"),
        )
        spec = ServiceSpec(
            name="attention", module="attention_svc", stage=1,
            flags=(*ports, *fixed, *how, *limits, *flags), dials=(), threads=8,
        )  # fmt: skip
        self._process = ServiceProcess(spec, folder / f"attention-{layers}.log")

    def __enter__(self) -> "Service":
        self._process.start({})
        start = time.monotonic()
        with httpx.Client(trust_env=False) as client:
            while not self._process.readiness(client)[0]:
                if not self._process.running or time.monotonic() > start + START_TIMEOUT_S:
                    raise RuntimeError(f"the service did not start:\n{self._process.tail()}")
                time.sleep(0.2)
        say(f"ready after {time.monotonic() - start:.0f} s")
        self._addresses = self._process.addresses
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        deadline = time.monotonic() + 20
        while self._process.running and time.monotonic() < deadline:
            time.sleep(0.1)
        self._process.kill()

    def device_steps(self) -> tuple[float, float]:
        """Seconds and number of steps so far."""
        text = httpx.get(f"http://{self._addresses['ops']}/metrics", trust_env=False).text
        found = dict(_DEVICE.findall(text))
        return float(found["sum"]), float(found["count"])

    def streams(
        self, prompts: list[list[int]], num_tokens: int, sampling: dict[str, Any]
    ) -> list[list[float]]:
        """Arrival times of each stream's tokens, after the request."""

        async def one(stub: attention_pb2_grpc.AttentionStub, prompt: list[int]) -> list[float]:
            request = attention_pb2.GenerateRequest(
                prompt_token_ids=prompt,
                sampling=attention_pb2.SamplingParams(
                    **sampling, repetition_penalty=1.0, max_tokens=num_tokens, ignore_eos=True
                ),
            )
            times: list[float] = []
            start = time.perf_counter()
            async for response in stub.Generate(request, timeout=300):
                times += [time.perf_counter() - start] * len(response.tokens.token_ids)
            if len(times) != num_tokens:
                raise RuntimeError(f"{len(times)} of {num_tokens} tokens\n{self._process.tail()}")
            return times

        async def all_of_them() -> list[list[float]]:
            async with grpc.aio.insecure_channel(self._addresses["grpc"]) as channel:
                stub = attention_pb2_grpc.AttentionStub(channel)
                return await asyncio.gather(*(one(stub, prompt) for prompt in prompts))

        return asyncio.run(all_of_them())


def decode(
    service: Service, streams: int, context: int, sampling: dict[str, Any], seconds: float
) -> dict[str, float]:
    """Of streams that all decode: tokens a second, and milliseconds of a step and of the device."""
    prompts = [random_prompt(context, seed) for seed in range(streams)]
    service.streams(prompts, 1, GREEDY)  # computes the prompts
    count = 16
    while True:
        # The same tokens twice: the first run makes the graphs.
        service.streams(prompts, count, sampling)
        before = service.device_steps()
        times = service.streams(prompts, count, sampling)
        after = service.device_steps()
        begun = max(stream[1] for stream in times)
        ended = min(stream[-1] for stream in times)
        if ended - begun > seconds / 2 or count >= 512:
            break
        count = min(512, int(count * max(2, seconds / max(ended - begun, 0.01))))
    gaps = [b - a for stream in times for a, b in itertools.pairwise(stream[1:])]
    device_s = (after[0] - before[0]) / (after[1] - before[1])
    found = {
        "tok_s": streams * (count - 2) / (ended - begun),
        "step_ms": statistics.median(gaps) * 1e3,
        "device_ms": device_s * 1e3,
    }
    return {name: round(value, 3) for name, value in found.items()}


def prefill(service: Service, length: int) -> float:
    """Tokens a second to the first token: the better of two new prompts, the first compiles."""
    service.streams([random_prompt(length, 90)], 1, GREEDY)
    return length / min(
        service.streams([random_prompt(length, seed)], 1, GREEDY)[0][0] for seed in (91, 92)
    )


def cached(service: Service, length: int, new: int) -> float:
    """Milliseconds to the first token of a prompt whose last tokens alone are new; the median."""
    prompt = random_prompt(length - new, 93)
    service.streams([prompt], 1, GREEDY)
    found = [
        service.streams([prompt + random_prompt(new, seed)], 1, GREEDY)[0][0]
        for seed in range(100, 107)
    ]
    return statistics.median(found[2:]) * 1e3


def full(folder: Path, seconds: float, step_rows: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with Service(folder, 62, step_rows, *FULL_FORMATS) as service:
        for streams, context in FULL:
            for name, sampling in (("greedy", GREEDY), ("sampled", SAMPLED)):
                key = f"{streams} x {context} {name}"
                found[key] = decode(service, streams, context, sampling, seconds)
                say(f"full {key}: {found[key]}")
    return found


def prefill_of_full(folder: Path, _: float, step_rows: int) -> dict[str, Any]:
    with Service(folder, 62, step_rows, *FULL_FORMATS) as service:
        found = {
            "8000 tok_s": round(prefill(service, 8000)),
            "cached 7900 of 8000 ms": round(cached(service, 8000, 100), 1),
        }
    say(f"prefill: {found}")
    return found


def slope(folder: Path, seconds: float, step_rows: int) -> dict[str, Any]:
    steps: dict[int, dict[int, dict[str, float]]] = {}
    rate = 0.0
    for layers in (8, 24):
        with Service(folder, layers, step_rows, *SLOPE_FORMATS) as service:
            steps[layers] = {
                rows: decode(service, rows, 64, GREEDY, seconds) for rows in SLOPE_ROWS
            }
            rate = prefill(service, 8000)
        say(f"slope, {layers} layers: {steps[layers]}, prefill {rate:.0f} tok/s")
    return {
        f"layer_{name.replace('ms', 'us')}": {
            str(rows): round((steps[24][rows][name] - steps[8][rows][name]) / 16 * 1e3, 1)
            for rows in SLOPE_ROWS
        }
        for name in ("step_ms", "device_ms")
    } | {"prefill 8000 of 24 layers tok_s": round(rate)}


def random_prompt(length: int, seed: int) -> list[int]:
    return random.Random(seed).choices(range(M2["vocab_size"]), k=length)


def _write_model(folder: Path, layers: int) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({**M2, "num_hidden_layers": layers}))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default="full,prefill,slope")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each decode measurement")
    parser.add_argument("--step-rows", type=int, default=8192, help="rows of a step at most")
    arguments = parser.parse_args()
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name(),
        "copy_tb_s": round(copy_rate() / 1e12, 3),
    }
    torch.cuda.empty_cache()
    with tempfile.TemporaryDirectory() as folder:
        for part in arguments.parts.split(","):
            start = time.monotonic()
            measure = {"full": full, "prefill": prefill_of_full, "slope": slope}[part]
            found[part] = measure(Path(folder), arguments.seconds, arguments.step_rows)
            say(f"{part}: {time.monotonic() - start:.0f} s")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
