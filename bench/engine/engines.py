"""Which engines does `bench/engine/engine.py` compare? Ours as services, and Transformers.

Each runs in its own processes and answers `measure("decode", sequences, ...)` and
`measure("prefill", prompt tokens, ...)`. Prompts are random and new each time.
"""

import asyncio
import json
import random
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import httpx
import psutil

import rpc  # noqa: F401  sets grpc's environment before grpc is imported

import grpc.aio  # isort: skip

from expertmesh.cluster.children import child_environment, python_module
from expertmesh.cluster.options import stripe
from expertmesh.cluster.process import ServiceProcess
from expertmesh.cluster.spec import ServiceSpec
from moe_model.config import ModelConfig
from protos import attention_pb2, attention_pb2_grpc

PROMPT_TOKENS = 16
"""Of each sequence in decode measurements."""
START_TIMEOUT_S = 600.0
REQUEST_TIMEOUT_S = 600.0
_STEP_SUM = re.compile(r'^expertmesh_step_seconds_sum\{part="(attention|experts)"\} (\S+)', re.M)


@dataclass(frozen=True)
class Result:
    """One measurement. `engine_share`: share of the time in neither attention nor expert calls."""

    tokens_per_s: float
    tokens_per_cpu_s: float | None = None
    engine_share: float | None = None


class Engine(Protocol):
    def start(self) -> None: ...

    def measure(self, kind: str, size: int, num_tokens: int, *, seed: int) -> Result: ...

    def stop(self) -> None: ...


class Served:
    """Our services on free ports of this machine, called over gRPC as a gateway would."""

    def __init__(
        self,
        name: str,
        model: Path,
        config: ModelConfig,
        logs: Path,
        threads: int,
        split_threads: int | None,
        weight_format: str = "bf16",
    ):
        """`logs`: a folder for this engine alone."""
        self._vocab_size = config.vocab_size
        self._logs = logs
        self._specs = list(
            _specs(name, model, config, threads, split_threads or threads, weight_format)
        )
        self._running: list[ServiceProcess] = []

    def start(self) -> None:
        """Start stage by stage. Raises RuntimeError with the log of a service that fails to."""
        self._logs.mkdir(exist_ok=True)
        deadline = time.monotonic() + START_TIMEOUT_S
        addresses: dict[str, dict[str, str]] = {}
        with httpx.Client(trust_env=False) as client:
            for stage in sorted({spec.stage for spec in self._specs}):
                started = [
                    ServiceProcess(spec, self._logs / f"{spec.name}.log")
                    for spec in self._specs
                    if spec.stage == stage
                ]
                self._running += started
                for service in started:
                    service.start(addresses)
                for service in started:
                    while not service.readiness(client)[0]:
                        if not service.running or time.monotonic() > deadline:
                            log = service.tail()
                            self.stop()
                            raise RuntimeError(f"{service.spec.name} did not start:\n{log}")
                        time.sleep(0.2)
                    addresses[service.spec.name] = service.addresses
        self._address = addresses["attention"]["grpc"]
        self._ops = addresses["attention"]["ops"]
        for kind, size in (("prefill", 256), ("decode", 4)):  # first calls allocate memory
            self.measure(kind, size, 4, seed=-1)

    def stop(self) -> None:
        for service in reversed(self._running):
            service.terminate()
        deadline = time.monotonic() + 20
        while any(service.running for service in self._running) and time.monotonic() < deadline:
            time.sleep(0.1)
        for service in self._running:
            service.kill()
        self._running.clear()

    def measure(self, kind: str, size: int, num_tokens: int, *, seed: int) -> Result:
        prompts = _prompts(kind, size, seed, self._vocab_size)
        wanted = num_tokens if kind == "decode" else 1
        model_s, cpu_s = self._model_s(), self._cpu_s()
        start = time.perf_counter()
        times, first_cpu_s = asyncio.run(self._generate(prompts, wanted))
        wall_s = time.perf_counter() - start
        if kind == "prefill":
            return Result(
                tokens_per_s=size / (times[0][0] - start),
                tokens_per_cpu_s=size / (first_cpu_s - cpu_s),
            )
        # All streams decode from the last first token to the first last token.
        first, last = max(t[0] for t in times), min(t[-1] for t in times)
        counted = sum(first < at <= last for stream in times for at in stream)
        after = sum(first < at for stream in times for at in stream)
        return Result(
            tokens_per_s=counted / (last - first),
            tokens_per_cpu_s=after / (self._cpu_s() - first_cpu_s),
            engine_share=1 - (self._model_s() - model_s) / wall_s,
        )

    def expert_load(self) -> list[list[int]]:
        """Rows routed to each expert since the start, by layer."""
        answer = httpx.get(f"http://{self._ops}/experts/load", trust_env=False)
        layers: list[list[int]] = answer.json()["layers"]
        return layers

    def _cpu_s(self) -> float:
        """CPU time of all our processes so far."""
        pids = [service.pid for service in self._running if service.pid]
        times = [psutil.Process(pid).cpu_times() for pid in pids]
        return sum(spent.user + spent.system for spent in times)

    def _model_s(self) -> float:
        """Seconds of all steps so far in attention and in expert calls."""
        text = httpx.get(f"http://{self._ops}/metrics", trust_env=False).text
        return sum(float(value) for _, value in _STEP_SUM.findall(text))

    async def _generate(
        self, prompts: list[list[int]], num_tokens: int
    ) -> tuple[list[list[float]], float]:
        """Arrival times of every stream's tokens; `_cpu_s` when each had its first."""
        cpu_s, without = 0.0, len(prompts)
        async with grpc.aio.insecure_channel(self._address) as channel:
            stub = attention_pb2_grpc.AttentionStub(channel)

            async def one(prompt: list[int]) -> list[float]:
                nonlocal cpu_s, without
                request = attention_pb2.GenerateRequest(
                    prompt_token_ids=prompt,
                    sampling=attention_pb2.SamplingParams(
                        top_p=1.0, repetition_penalty=1.0, max_tokens=num_tokens, ignore_eos=True
                    ),
                )
                times: list[float] = []
                async for response in stub.Generate(request, timeout=REQUEST_TIMEOUT_S):
                    without -= not times and bool(response.tokens.token_ids)
                    times += [time.perf_counter()] * len(response.tokens.token_ids)
                    if not without and not cpu_s:
                        cpu_s = self._cpu_s()
                if len(times) != num_tokens:
                    logs = "\n".join(service.tail() for service in self._running)
                    raise RuntimeError(f"{len(times)} of {num_tokens} tokens: {response}\n{logs}")
                return times

            return await asyncio.gather(*map(one, prompts)), cpu_s


def _specs(
    name: str,
    model: Path,
    config: ModelConfig,
    threads: int,
    split_threads: int,
    weight_format: str,
) -> Iterator[ServiceSpec]:
    ports = ("--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0")
    experts, linears = ("--expert-dtype", weight_format), ("--linear-dtype", weight_format)
    computing = (*ports, "--model", str(model), "--dtype", "bf16")

    def service(name: str, module: str, stage: int, threads: int, *flags: str) -> ServiceSpec:
        dials = (("--router", "router"),) if stage and "in_process" not in flags else ()
        flags = (*computing, "--threads", str(threads), *flags) if stage else (*ports, *flags)
        return ServiceSpec(
            name=name, module=module, stage=stage, flags=flags, dials=dials, threads=threads
        )

    if name == "in_process":
        flags = ("--transport", "in_process", *experts, *linears)
        yield service("attention", "attention_svc", 1, threads, *flags)
        return
    yield service("router", "router_svc", 0, 1, "--adopt-ms", "300")
    middle = config.num_experts // 2
    halves = (f"0-{middle - 1}", f"{middle}-{config.num_experts - 1}")
    for pool in range(2):
        layers = ("--layers", ",".join(map(str, stripe(config.num_layers, 2, pool))))
        flags = layers if name == "split" else ("--experts", halves[pool])
        # Pools with alternate layers take turns; pools with half of each layer work together.
        pool_threads = split_threads if name == "split" else max(1, split_threads // 2)
        pool_id = f"pool-{pool}"
        yield service(
            pool_id, "expert_svc", 1, pool_threads, "--pool-id", pool_id, *flags, *experts
        )
    yield service("attention", "attention_svc", 2, split_threads, *linears)


class Transformers:
    """Hugging Face's model in a child process that takes measurements as JSON lines."""

    def __init__(self, model: Path, vocab_size: int, logs: Path, threads: int):
        self._command = python_module("bench.engine.transformers_worker", str(model), str(threads))
        self._environment = child_environment(threads)
        self._vocab_size = vocab_size
        self._log = logs / "transformers.log"
        self._child: subprocess.Popen[str] | None = None

    def start(self) -> None:
        with open(self._log, "wb") as log:
            self._child = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=self._environment,
            )
        for kind, size in (("prefill", 256), ("decode", 4)):
            self.measure(kind, size, 4, seed=-1)

    def measure(self, kind: str, size: int, num_tokens: int, *, seed: int) -> Result:
        assert self._child is not None
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        prompts = _prompts(kind, size, seed, self._vocab_size)
        tokens = num_tokens if kind == "decode" else 1
        self._child.stdin.write(json.dumps({"prompts": prompts, "tokens": tokens}) + "\n")
        self._child.stdin.flush()
        line = self._child.stdout.readline()
        if not line:
            raise RuntimeError(f"transformers exited:\n{self._log.read_text()[-2000:]}")
        answer = json.loads(line)
        if kind == "prefill":
            return Result(size / answer["prefill_s"], size / answer["prefill_cpu_s"])
        decoded = size * (num_tokens - 1)
        return Result(decoded / answer["decode_s"], decoded / answer["decode_cpu_s"])

    def stop(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None


def _prompts(kind: str, size: int, seed: int, vocab_size: int) -> list[list[int]]:
    """Never the same twice, so that a prefix cache is of no use."""
    numbers = random.Random(f"{kind} {size} {seed} {time.time_ns()}")
    count, length = (size, PROMPT_TOKENS) if kind == "decode" else (1, size)
    return [[numbers.randrange(3, vocab_size) for _ in range(length)] for _ in range(count)]
