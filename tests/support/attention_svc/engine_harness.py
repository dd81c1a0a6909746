"""An engine inside the test's own process: experts in process, or over gRPC to a real pool."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from attention_svc.activations import ActivationCounts
from attention_svc.engine.engine import Engine
from attention_svc.engine.layer_stack import LayerStack
from attention_svc.engine.scheduler import Scheduler
from attention_svc.experts.in_process import InProcessTransport
from attention_svc.experts.over_grpc import GrpcTransport
from attention_svc.experts.transport import ExpertTransport
from attention_svc.kv.block_pool import BlockPool
from attention_svc.kv.block_tables import BlockTables
from attention_svc.kv.cache import KvCache
from attention_svc.metrics import AttentionMetrics
from attention_svc.sequence.params import SequenceParams
from attention_svc.sequence.sequence import Sequence as EngineSequence
from expert_svc.canary import Canary
from expert_svc.compute import run_call
from expert_svc.executor import Executor
from expert_svc.metrics import ExpertMetrics
from expert_svc.servicer import ExpertServicer, PoolIdentity
from expert_svc.weight_store import WeightStore
from moe_model.backends.choice import choose_backend
from moe_model.maths.kv_layout import PlainLayout
from moe_model.weights.checkpoint import Checkpoint
from moe_model.weights.manifest import build_manifest
from protos import router_pb2
from rpc.config import Address
from rpc.hop.codec import HopCodec
from rpc.process.server import GrpcHost

BLOCK_SIZE = 16
GREEDY = SequenceParams(
    temperature=0,
    top_p=1,
    top_k=0,
    min_p=0,
    repetition_penalty=1,
    presence_penalty=0,
    frequency_penalty=0,
    logit_bias=(),
    seed=0,
    max_tokens=120,
    min_tokens=0,
    stop_token_ids=frozenset(),
    ignore_eos=True,
    logprobs=False,
    top_logprobs=0,
)


@contextlib.asynccontextmanager
async def grpc_transport(
    checkpoint: Checkpoint, metrics: AttentionMetrics, dtype: torch.dtype = torch.float32
) -> AsyncIterator[GrpcTransport]:
    """Connected to a real pool on a real server that holds everything."""
    manifest = build_manifest(checkpoint)
    store = WeightStore(checkpoint, manifest, choose_backend(dtype))
    store.load(store.available())
    codec = HopCodec.best()
    executor = Executor(lambda call: run_call(call, store), inline_rows=8)
    identity = PoolIdentity(
        pool_id="p", incarnation=1, checkpoint_id=manifest.checkpoint_id, numerics_id="test"
    )
    host = GrpcHost(Address(host="127.0.0.1", port=0), tls=None)
    pool_metrics = ExpertMetrics()
    canary = Canary(store, executor, pool_metrics, period_s=0)
    servicer = ExpertServicer(
        identity, store, executor, pool_metrics, codec, max_rows=512, try_experts=canary.try_now
    )
    servicer.add_to(host.server)
    await host.start(["expertmesh.expert.v1.ExpertPool"])
    queue = asyncio.create_task(executor.run())
    transport = GrpcTransport.of_model(
        checkpoint.config,
        metrics,
        checkpoint_id=manifest.checkpoint_id,
        caller_id="test",
        access=None,
    )
    entry = router_pb2.PoolEntry(
        pool_id="p", incarnation=1, address=str(host.address), pieces=store.pieces.to_message()
    )
    transport.pools.apply(router_pb2.Topology(pools=[entry]))
    try:
        async with asyncio.timeout(20):
            while not transport.ready()[0]:
                await asyncio.sleep(0.02)
        yield transport
    finally:
        await transport.pools.stop()
        queue.cancel()
        await host.stop(0)
        executor.close()


@contextlib.asynccontextmanager
async def open_engine(
    checkpoint: Checkpoint,
    *,
    over_grpc: bool = False,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    weight_format: str = "f32",
    num_blocks: int = 256,
    max_batch_tokens: int = 64,
    max_running: int = 16,
    prepare: Callable[[LayerStack], None] = lambda stack: None,
) -> AsyncIterator[tuple[Engine, Scheduler]]:
    """Running; `prepare` may change the stack first."""
    config = checkpoint.config
    activations = ActivationCounts(config.num_layers, config.num_experts)
    metrics = AttentionMetrics()
    async with contextlib.AsyncExitStack() as resources:
        thread = resources.enter_context(ThreadPoolExecutor(1))
        backend = choose_backend(dtype, device)
        transport: ExpertTransport
        if over_grpc:
            transport = await resources.enter_async_context(
                grpc_transport(checkpoint, metrics, dtype)
            )
        else:
            transport = InProcessTransport(
                checkpoint,
                backend,
                weight_format=weight_format,
                compute_thread=thread,
                inline_rows=64,
            )
        cache = KvCache(
            PlainLayout.of(config, dtype),
            num_layers=config.num_layers,
            num_blocks=num_blocks,
            block_size=BLOCK_SIZE,
            device=backend.device,
        )
        stack = LayerStack(
            checkpoint,
            cache,
            transport,
            activations,
            backend=backend,
            linear_format=weight_format,
            compute_thread=thread,
        )
        prepare(stack)
        scheduler = Scheduler(
            BlockTables(BlockPool(num_blocks), block_size=BLOCK_SIZE),
            max_batch_tokens=max_batch_tokens,
            max_running=max_running,
            max_waiting=64,
            max_waiting_tokens=100_000,
        )
        engine = Engine(stack, scheduler, metrics, max_model_len=2048, expert_timeout_s=10)
        running = asyncio.create_task(engine.run())
        yield engine, scheduler
        running.cancel()
        assert scheduler.kv_usage_ratio == 0.0, "a block leaked"


async def run_to_end(
    checkpoint: Checkpoint,
    sequences: Sequence[EngineSequence],
    *,
    timeout_s: float = 100,
    **given: Any,
) -> int:
    """Run all sequences in order; `given`: see `open_engine`.

    Returns how often one was preempted.
    """
    async with open_engine(checkpoint, **given) as (engine, scheduler):
        for sequence in sequences:
            engine.add(sequence)
        async with asyncio.timeout(timeout_s):
            while not engine.idle:
                await asyncio.sleep(0.01)
        return scheduler.num_preemptions
