"""What do pools bear of a recorded routing? Expert calls as attention would send them, without a model.

The recording says how often each expert was chosen; each row's experts are drawn by that, from a seed.
Hidden rows are random. Everything else is the real thing: the attention service's own client, with
its choice of pools, its retries and the topology that the router publishes.
"""

import asyncio
import json
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attention_svc.grpc_transport import GrpcTransport
from attention_svc.metrics import AttentionMetrics
from attention_svc.pool_link import PoolLink
from attention_svc.pool_set import PoolSet
from attention_svc.transport import ExpertsUnavailable, HopTerms, StepPoisoned
from minimax_m2.config import ModelConfig
from protos import router_pb2, tensor_pb2
from rpc.hop_codec import HopCodec
from rpc.tls import TlsFiles
from rpc.topology import TopologyWatcher

CONNECT_S = 20.0
CALL_S = 30.0
DTYPES = {tensor_pb2.DTYPE_BFLOAT16: torch.bfloat16, tensor_pb2.DTYPE_FLOAT32: torch.float32}


@dataclass(frozen=True, kw_only=True)
class Replay:
    """How much of it."""

    tokens: Sequence[Sequence[int]]  # [layer][expert]
    steps: int  # of each stream; one call per layer each
    streams: int
    rows: int  # tokens in a step
    seed: int = 0


def read_recording(path: Path, config: ModelConfig) -> list[list[int]]:
    """[layer][expert] of a file that `experts record` wrote. Raises ValueError."""
    try:
        tokens = json.loads(path.read_text())["tokens"]
        shape = {(len(tokens), len(row)) for row in tokens}
        sound = all(type(count) is int and count >= 0 for row in tokens for count in row)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: not a recording of `expertmesh experts record`: {error}"
        ) from None
    if not sound or shape != {(config.num_layers, config.num_experts)}:
        raise ValueError(
            f"{path}: expected counts of {config.num_layers} layers of {config.num_experts} experts"
        )
    if not any(map(sum, tokens)):
        raise ValueError(f"{path}: nothing was routed while it was recorded")
    return tokens


def draw(counts: Sequence[int], rows: int, top_k: int, generator: torch.Generator) -> Tensor:
    """int32 [rows, top_k]: different experts of each row, ascending, chosen as often as `counts` say."""
    # The best of log chance + Gumbel noise are a draw without replacement.
    chances_E = torch.tensor(counts, dtype=torch.float64) + 1e-9
    noise_TE = -torch.log(
        -torch.log(torch.rand(rows, len(counts), generator=generator, dtype=torch.float64))
    )
    return (
        (chances_E.log() + noise_TE).topk(top_k, dim=1).indices.sort(dim=1).values.to(torch.int32)
    )


async def run_replay(
    replay: Replay, config: ModelConfig, router: str, tls: TlsFiles | None, checkpoint_id: str
) -> dict[str, Any]:
    """Latencies of calls and steps, and how evenly the pools worked. Raises ValueError when the
    pools do not serve the whole model."""
    metrics = AttentionMetrics(config.num_layers, config.num_experts)
    codec = HopCodec.best()

    def make_link(pool_id: str, address: str, on_change: Any) -> PoolLink:
        return PoolLink(
            pool_id, address, caller_id="replay", checkpoint_id=checkpoint_id,
            num_layers=config.num_layers, num_experts=config.num_experts, tls=tls,
            metrics=metrics, codec=codec, on_change=on_change,
        )  # fmt: skip

    pools = PoolSet(config.num_layers, config.num_experts, make_link, work=metrics.activations.work)
    transport = GrpcTransport(pools, metrics, codec)
    watcher = TopologyWatcher(router, tls, watcher_id="replay", on_change=pools.apply)
    await watcher.start()
    try:
        async with asyncio.timeout(CONNECT_S):
            while not transport.ready()[0]:
                await asyncio.sleep(0.05)
        calls_s: list[float] = []
        steps_s: list[float] = []
        failures: list[str] = []
        dtype = _accepted(pools)

        async def stream(number: int) -> None:
            generator = torch.Generator().manual_seed(replay.seed + number)
            hidden_TD = torch.randn(replay.rows, config.hidden_size, generator=generator)
            hidden_TD = hidden_TD.to(dtype)
            weights_TK = torch.full((replay.rows, config.top_k), 1 / config.top_k)
            out_TD = torch.empty(replay.rows, config.hidden_size)
            for _ in range(replay.steps):
                begin_s = time.perf_counter()
                for layer_idx, counts in enumerate(replay.tokens):
                    ids_TK = draw(counts, replay.rows, config.top_k, generator)
                    metrics.activations.add(layer_idx, ids_TK.numpy())
                    sent_s = time.perf_counter()
                    ticket = transport.submit(
                        layer_idx, hidden_TD, ids_TK, weights_TK, HopTerms(timeout_s=CALL_S),
                        is_decode=True,
                    )  # fmt: skip
                    try:
                        await ticket.wait_into(out_TD)
                    except (ExpertsUnavailable, StepPoisoned) as error:
                        failures.append(f"layer {layer_idx}: {error}")
                    calls_s.append(time.perf_counter() - sent_s)
                steps_s.append(time.perf_counter() - begin_s)

        begin_s = time.perf_counter()
        await asyncio.gather(*(stream(number) for number in range(replay.streams)))
        duration_s = time.perf_counter() - begin_s
    except TimeoutError:
        raise ValueError(f"not ready after {CONNECT_S:g} s: {transport.ready()[1]}") from None
    finally:
        await watcher.stop()
        await pools.stop()
    return {
        "streams": replay.streams,
        "rows": replay.rows,
        "steps": len(steps_s),
        "calls": len(calls_s),
        "failed_calls": len(failures),
        "failures": sorted(set(failures))[:5],
        "duration_s": duration_s,
        "rows_per_s": len(steps_s) * replay.rows / duration_s,
        "call": spread_ms(calls_s),
        "step": spread_ms(steps_s),
        **balance_of(metrics),
    }


def _accepted(pools: PoolSet) -> torch.dtype:
    """What all pools compute with."""
    hellos = [link.hello for link in pools.links if link.hello is not None]
    for number, dtype in DTYPES.items():
        if all(number in hello.accepted_dtypes for hello in hellos):
            return dtype
    raise ValueError("the pools accept neither bfloat16 nor float32 in common")


def spread_ms(samples_s: Sequence[float]) -> dict[str, float]:
    """Median, 90th and 99th percentile, longest, in milliseconds."""
    ordered = sorted(1000 * sample for sample in samples_s)
    at = {
        f"p{share}_ms": ordered[min(len(ordered) - 1, math.ceil(share / 100 * len(ordered)) - 1)]
        for share in (50, 90, 99)
    }
    return {**at, "max_ms": ordered[-1]}


def balance_of(metrics: AttentionMetrics) -> dict[str, Any]:
    """Each pool's calls and seconds of computing, and the busiest's over the mean."""
    metrics.flush_hops(0, 0)  # bytes are not asked for here
    pools: dict[str, dict[str, float]] = {}
    for family in metrics.registry.collect():
        for sample in family.samples:
            if sample.labels.get("part") == "compute" and "pool" in sample.labels:
                entry = pools.setdefault(sample.labels["pool"], {"calls": 0, "compute_s": 0.0})
                if sample.name.endswith("_count"):
                    entry["calls"] = int(sample.value)
                elif sample.name.endswith("_sum"):
                    entry["compute_s"] = sample.value
    busy = [entry["compute_s"] for entry in pools.values()]
    return {
        "pools": dict(sorted(pools.items())),
        "imbalance": max(busy) / statistics.fmean(busy) if sum(busy) else 1.0,
    }


def check_model(config: ModelConfig, topology: router_pb2.Topology) -> None:
    """Raises ValueError when the mesh serves something else."""
    served = (topology.num_layers, topology.num_experts)
    if served != (config.num_layers, config.num_experts):
        raise ValueError(
            f"--model: {config.num_layers} layers of {config.num_experts} experts, the mesh serves "
            f"{served[0]} of {served[1]}"
        )
