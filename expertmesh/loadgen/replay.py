"""How do the pools handle a recorded routing? Expert calls are sent to them without a model.

`routing` gives the experts of each row; hidden rows are random. The calls are sent by the
attention service's own client, with its choice of pools and its retries, for the topology that the
router publishes.
"""

import asyncio
import math
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch

from attention_svc.activations import ActivationCounts
from attention_svc.experts.over_grpc import GrpcTransport
from attention_svc.experts.pools import PoolSet
from attention_svc.experts.transport import ExpertsUnavailable, HopTerms, StepPoisoned
from attention_svc.metrics import AttentionMetrics
from expertmesh.loadgen.routing import Routing
from moe_model.config import ModelConfig
from protos import router_pb2, tensor_pb2
from rpc.channel import Access
from rpc.mesh.topology import TopologyWatcher

CONNECT_S = 20.0
CALL_S = 30.0
DTYPES = {tensor_pb2.DTYPE_BFLOAT16: torch.bfloat16, tensor_pb2.DTYPE_FLOAT32: torch.float32}


async def run_replay(
    routing: Routing,
    num_streams: int,
    config: ModelConfig,
    router: str,
    tls: Access | None,
    checkpoint_id: str,
) -> dict[str, Any]:
    """Latencies of calls and steps, and how evenly the pools were used.

    Raises ValueError if the pools do not serve the whole model.
    """
    activations = ActivationCounts(config.num_layers, config.num_experts)
    metrics = AttentionMetrics()
    transport = GrpcTransport.of_model(
        config,
        metrics,
        checkpoint_id=checkpoint_id,
        caller_id="replay",
        access=tls,
        work=activations.work,
    )
    pools = transport.pools
    watcher = TopologyWatcher(router, tls, watcher_id="replay", on_change=pools.apply)
    await watcher.start()
    try:
        async with asyncio.timeout(CONNECT_S):
            while not transport.ready()[0]:
                await asyncio.sleep(0.05)
        calls_s: list[float] = []
        steps_s: list[float] = []
        rows: list[int] = []
        failures: list[str] = []
        dtype = _accepted(pools)

        async def stream(number: int) -> None:
            generator = torch.Generator().manual_seed(number)
            for step in routing.steps(number, num_streams):
                num_rows = step.ids_LTK.shape[1]
                hidden_TD = torch.randn(num_rows, config.hidden_size, generator=generator)
                hidden_TD = hidden_TD.to(dtype)
                weights_TK = torch.full((num_rows, config.top_k), 1 / config.top_k)
                out_TD = torch.empty(num_rows, config.hidden_size)
                activations.add_step(step.ids_LTK.numpy(), is_decode=step.is_decode)
                begin_s = time.perf_counter()
                for layer_idx, ids_TK in enumerate(step.ids_LTK):
                    sent_s = time.perf_counter()
                    ticket = transport.submit(
                        layer_idx,
                        hidden_TD,
                        ids_TK,
                        weights_TK,
                        HopTerms(timeout_s=CALL_S),
                        is_decode=step.is_decode,
                    )
                    try:
                        await ticket.wait_into(out_TD)
                    except (ExpertsUnavailable, StepPoisoned) as error:
                        failures.append(f"layer {layer_idx}: {error}")
                    calls_s.append(time.perf_counter() - sent_s)
                steps_s.append(time.perf_counter() - begin_s)
                rows.append(num_rows)

        begin_s = time.perf_counter()
        await asyncio.gather(*(stream(number) for number in range(num_streams)))
        duration_s = time.perf_counter() - begin_s
    except TimeoutError:
        raise ValueError(f"not ready after {CONNECT_S:g} s: {transport.ready()[1]}") from None
    finally:
        await watcher.stop()
        await pools.stop()
    return {
        "streams": num_streams,
        "rows": sum(rows),
        "steps": len(steps_s),
        "calls": len(calls_s),
        "failed_calls": len(failures),
        "failures": sorted(set(failures))[:5],
        "duration_s": duration_s,
        "rows_per_s": sum(rows) / duration_s,
        "call": spread_ms(calls_s),
        "step": spread_ms(steps_s),
        **balance_of(metrics),
    }


def _accepted(pools: PoolSet) -> torch.dtype:
    """A dtype that all pools accept. Raises ValueError."""
    hellos = [link.hello for link in pools.links if link.hello is not None]
    for number, dtype in DTYPES.items():
        if all(number in hello.accepted_dtypes for hello in hellos):
            return dtype
    raise ValueError("the pools accept neither bfloat16 nor float32 in common")


def spread_ms(samples_s: Sequence[float]) -> dict[str, float]:
    """Median, 90th and 99th percentile, and the longest, in milliseconds."""
    ordered = sorted(1000 * sample for sample in samples_s)
    at = {
        f"p{share}_ms": ordered[min(len(ordered) - 1, math.ceil(share / 100 * len(ordered)) - 1)]
        for share in (50, 90, 99)
    }
    return {**at, "max_ms": ordered[-1]}


def balance_of(metrics: AttentionMetrics) -> dict[str, Any]:
    """Each pool's calls and seconds of computing, and the busiest pool's over the mean."""
    metrics.flush_hops(0, 0)  # bytes are not reported here
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
    """Raises ValueError if the mesh serves a model of another shape."""
    served = (topology.num_layers, topology.num_experts)
    if served != (config.num_layers, config.num_experts):
        raise ValueError(
            f"--model: {config.num_layers} layers of {config.num_experts} experts, the mesh serves "
            f"{served[0]} of {served[1]}"
        )
