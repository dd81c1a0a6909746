"""Which services does bench/engine/gpu.py ask? An attention service, alone or beside a pool."""

import asyncio
import json
import random
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

import rpc  # noqa: F401  sets grpc's environment before grpc is imported

import grpc.aio  # isort: skip

from expertmesh.cluster.process import ServiceProcess
from expertmesh.cluster.spec import ServiceSpec
from protos import attention_pb2, attention_pb2_grpc

START_TIMEOUT_S = 300.0
LOAD = ("--load", "random:7")
_PORTS = ("--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0")
_TO_ROUTER = (("--router", "router"),)
_DEVICE = re.compile(r"^expertmesh_device_step_seconds_(sum|count) (\S+)", re.M)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where, and which model. `is_tiny`: all sizes are far smaller."""

    config: dict[str, Any]
    device: str = "cuda"
    step_rows: int = 8192
    is_tiny: bool = False

    def layers(self, count: int) -> int:
        return max(1, count // 8) if self.is_tiny else count

    def length(self, positions: int) -> int:
        """Of a context or a prompt."""
        return max(2, positions // 64) if self.is_tiny else positions

    def streams(self, count: int) -> int:
        return min(count, 4) if self.is_tiny else count

    def prompt(self, length: int, seed: int) -> list[int]:
        vocabulary = range(self.config["vocab_size"])
        return random.Random(seed).choices(vocabulary, k=self.length(length))

    def model(self, folder: Path, layers: int) -> Path:
        """Its config.json, with so many layers: weights are made from a seed."""
        made = folder / f"m2-{layers}"
        if not made.exists():
            made.mkdir(parents=True)
            (made / "config.json").write_text(
                json.dumps({**self.config, "num_hidden_layers": layers})
            )
        return made

    def formats(self, experts: str, linears: str) -> tuple[str, ...]:
        """Flags; on a CPU what it holds by itself."""
        if self.device == "cpu":
            return ()
        return ("--expert-dtype", experts, "--linear-dtype", linears)

    def memory(self, share: float) -> tuple[str, ...]:
        return () if self.device == "cpu" else ("--gpu-memory", str(share))


class Service:
    """An attention service on this machine; with a pool on the same device, if it has none."""

    def __init__(
        self,
        folder: Path,
        place: Place,
        layers: int,
        *flags: str,
        pool: tuple[str, ...] | None = None,
    ):
        """`pool`: flags of a pool with all experts; None: the service holds them."""
        layers = place.layers(layers)
        shared = (
            *("--model", str(place.model(folder, layers)), *LOAD),
            *("--device", place.device, "--dtype", "bf16"),
        )
        limits = ("--max-running", "64", "--max-batch-tokens", str(place.step_rows))
        where = ("--transport", "in_process") if pool is None else ()
        specs = [
            ServiceSpec(
                name="attention", module="attention_svc", stage=2,
                flags=(*_PORTS, *shared, *where, *limits, *flags),
                dials=() if pool is None else _TO_ROUTER, threads=8,
            )
        ]  # fmt: skip
        if pool is not None:
            state = ("--state", str(folder / f"router-{layers}"), "--adopt-ms", "300")
            specs = [
                ServiceSpec(
                    name="router", module="router_svc", stage=0, flags=(*_PORTS, *state)
                ),
                ServiceSpec(
                    name="pool", module="expert_svc", stage=1, flags=(*_PORTS, *shared, *pool),
                    dials=_TO_ROUTER, threads=8,
                ),
                *specs,
            ]  # fmt: skip
        self._processes = [
            ServiceProcess(spec, folder / f"{spec.name}-{layers}.log") for spec in specs
        ]

    def __enter__(self) -> "Service":
        start = time.monotonic()
        addresses: dict[str, dict[str, str]] = {}
        try:
            with httpx.Client(trust_env=False) as client:
                for process in self._processes:
                    process.start(addresses)
                    while process.spec.stage == 0 and not process.readiness(client)[0]:
                        self._check(start)
                    addresses[process.spec.name] = process.addresses
                while not self._processes[-1].readiness(client)[0]:
                    self._check(start)
        except BaseException:
            self.__exit__()
            raise
        say(f"ready after {time.monotonic() - start:.0f} s")
        self._addresses = self._processes[-1].addresses
        for line in self.log("in use on", "of that, ", "graphs took"):
            say(line)
        return self

    def _check(self, start_s: float) -> None:
        for process in self._processes:
            ended = process.pid is not None and not process.running
            if ended or time.monotonic() > start_s + START_TIMEOUT_S:
                raise RuntimeError(f"{process.spec.name} did not start:\n{process.tail()}")
        time.sleep(0.2)

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            process.terminate()
        deadline = time.monotonic() + 20
        while any(one.running for one in self._processes) and time.monotonic() < deadline:
            time.sleep(0.1)
        for process in self._processes:
            process.kill()

    def log(self, *parts: str) -> list[str]:
        """Lines of the attention service's log with any of these parts."""
        lines = self._processes[-1].log_path.read_text(errors="replace").splitlines()
        return [line for line in lines if any(part in line for part in parts)]

    def device_steps(self) -> tuple[float, float]:
        """Seconds and number of steps so far; zeros where no step is a device's alone."""
        text = httpx.get(f"http://{self._addresses['ops']}/metrics", trust_env=False).text
        found = dict(_DEVICE.findall(text))
        return float(found.get("sum", 0)), float(found.get("count", 0))

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
                tails = "\n".join(process.tail() for process in self._processes)
                raise RuntimeError(f"{len(times)} of {num_tokens} tokens\n{tails}")
            return times

        async def all_of_them() -> list[list[float]]:
            async with grpc.aio.insecure_channel(self._addresses["grpc"]) as channel:
                stub = attention_pb2_grpc.AttentionStub(channel)
                return await asyncio.gather(*(one(stub, prompt) for prompt in prompts))

        return asyncio.run(all_of_them())


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
