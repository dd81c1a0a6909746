"""An attention service on a real aio server, experts in the same process."""

import asyncio
import contextlib
import functools
import itertools
import tempfile
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import torch

from attention_svc.activations import ActivationCounts
from attention_svc.engine.engine import Engine
from attention_svc.engine.layer_stack import LayerStack
from attention_svc.engine.scheduler import Scheduler
from attention_svc.experts.call_parts import CallContext, CallTime
from attention_svc.experts.health import RetryBudget
from attention_svc.experts.in_process import InProcessTransport
from attention_svc.experts.transport import ExpertsUnavailable, HopTerms
from attention_svc.grammar.compiler import GrammarCompiler
from attention_svc.kv.block_pool import BlockPool
from attention_svc.kv.block_tables import BlockTables
from attention_svc.kv.cache import KvCache
from attention_svc.kv.host_blocks import HostBlocks
from attention_svc.kv.host_memory import HostMemory
from attention_svc.kv.read_back_cost import ReadBackCost
from attention_svc.metrics import AttentionMetrics
from attention_svc.servicer import AttentionServicer
from attention_svc.vocabulary import Vocabulary
from moe_model.backends.choice import choose_backend
from moe_model.maths.kv_layout import PlainLayout
from moe_model.reference import ReferenceModel
from moe_model.tiny import write_tiny
from moe_model.weights.checkpoint import Checkpoint
from protos import attention_pb2, attention_pb2_grpc
from rpc.access.tls import TlsFiles
from rpc.channel import open_channel
from rpc.config import Address
from rpc.hop.codec import HopCodec
from rpc.process.server import GrpcHost

torch.set_num_threads(1)  # such small sizes are slower with more threads

WAIT_S = 20.0
VOCAB, CONTEXT, BLOCK, NUM_BLOCKS, EOS = 64, 128, 8, 32, 2
SERVICE = "expertmesh.attention.v1.Attention"


@functools.cache
def tiny() -> Checkpoint:
    with tempfile.TemporaryDirectory() as folder:
        write_tiny(
            Path(folder),
            seed=8,
            hidden_size=32,
            num_hidden_layers=2,
            intermediate_size=24,
            num_local_experts=4,
            vocab_size=VOCAB,
            max_position_embeddings=CONTEXT,
        )
        return Checkpoint.open(Path(folder))


@functools.cache
def reference() -> ReferenceModel:
    return ReferenceModel(tiny())


class SteppedTransport:
    """In-process experts behind a gate (closed: a step waits at its first layer) and a delay.

    While they are not `found`, a step waits for them as for experts that no pool serves.
    """

    on_host = False

    def __init__(self, inner: InProcessTransport, metrics: AttentionMetrics):
        self._inner = inner
        self.gate = asyncio.Event()
        self.gate.set()
        self.found = asyncio.Event()
        self.found.set()
        self.context = CallContext(
            cast(Any, None), HopCodec.best(), metrics, RetryBudget(), itertools.count()
        )
        self.delay_s = 0.0
        self.failure: Exception | None = None
        self.steps = 0
        self.on_submit: Callable[[], None] = lambda: None
        self.is_ready: tuple[bool, str] = (True, "")

    def held_here(self) -> tuple[()]:
        return ()

    def submit(self, layer_idx: int, *rows: Any, is_decode: bool) -> Any:
        if self.failure is not None:
            raise self.failure
        self.steps += layer_idx == 0
        self.on_submit()
        ticket = self._inner.submit(layer_idx, *rows, is_decode=is_decode)
        return _Held(self, ticket, layer_idx, rows[-1])

    def ready(self) -> tuple[bool, str]:
        return self.is_ready


class _Held:
    def __init__(self, transport: SteppedTransport, ticket: Any, layer_idx: int, terms: HopTerms):
        self._transport = transport
        self._ticket = ticket
        self._layer_idx = layer_idx
        self._terms = terms

    async def wait_into(self, out_TD: torch.Tensor) -> Any:
        await self._transport.gate.wait()
        if not self._transport.found.is_set():
            await self._until_found()
        await asyncio.sleep(self._transport.delay_s)
        return await self._ticket.wait_into(out_TD)

    async def _until_found(self) -> None:
        """Wait, with the deadline that real calls have."""
        expired = asyncio.Event()
        context, experts = self._transport.context, [0]
        time = CallTime(context, self._terms, self._layer_idx, experts, expired.set)
        context.outages.note(self._layer_idx, experts, time.began_s, "made up by a test")
        try:
            while not self._transport.found.is_set():
                if expired.is_set() or not self._terms.wanted():
                    raise ExpertsUnavailable("made up by a test")
                await asyncio.sleep(0.002)
            context.outages.over(self._layer_idx, experts)
        finally:
            time.close()


class Service:
    """What tests look at."""

    def __init__(
        self,
        engine: Engine,
        blocks: BlockPool,
        transport: SteppedTransport,
        thread: ThreadPoolExecutor,
        activations: ActivationCounts,
    ):
        self.engine = engine
        self.activations = activations
        self.thread = thread
        self.blocks = blocks
        self.transport = transport
        self.servicer: AttentionServicer
        self.address = ""

    @property
    def idle(self) -> bool:
        return self.engine.idle and not self.blocks.num_used

    async def until_idle(self) -> None:
        await until(lambda: self.idle)


async def until(condition: Any, timeout_s: float = WAIT_S) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.002)


def make_service(
    *,
    num_blocks: int = NUM_BLOCKS,
    block_size: int = BLOCK,
    prefix_cache: bool = True,
    expert_timeout_s: float = 5.0,
    mask_timeout_s: float = 30.0,
    host_slots: int = 0,
    **limits: int,
) -> Service:
    """An engine that nobody runs yet."""
    checkpoint = tiny()
    config = checkpoint.config
    backend = choose_backend(torch.float32)
    thread = ThreadPoolExecutor(1)
    activations = ActivationCounts(config.num_layers, config.num_experts)
    metrics = AttentionMetrics(activations)
    inner = InProcessTransport(
        checkpoint, backend, weight_format="f32", compute_thread=thread, inline_rows=10_000
    )
    transport = SteppedTransport(inner, metrics)
    cache = KvCache(
        PlainLayout.of(config, backend.dtype),
        num_layers=config.num_layers,
        num_blocks=num_blocks,
        block_size=block_size,
        device=backend.device,
    )
    stack = LayerStack(
        checkpoint,
        cache,
        transport,
        activations,
        backend=backend,
        linear_format="f32",
        compute_thread=thread,
    )
    blocks = BlockPool(num_blocks)
    cost = ReadBackCost()
    host = HostBlocks(host_slots, lambda blocks, tokens: True) if host_slots else None
    tables = BlockTables(blocks, block_size=block_size, prefix_cache=prefix_cache, host=host)
    known = {"max_batch_tokens": 64, "max_running": 8, "max_waiting": 8, "max_waiting_tokens": 500}
    engine = Engine(
        stack,
        Scheduler(tables, **{**known, **limits}),
        metrics,
        max_model_len=CONTEXT,
        expert_timeout_s=expert_timeout_s,
        mask_timeout_s=mask_timeout_s,
        host_memory=HostMemory(cache, host_slots, cost) if host_slots else None,
    )
    return Service(engine, blocks, transport, thread, activations)


@contextlib.asynccontextmanager
async def running_service(
    *,
    tls: TlsFiles | None = None,
    request_timeout_s: float = 60.0,
    expert_timeout_s: float = 5.0,
    mask_timeout_s: float = 30.0,
    **limits: int,
) -> AsyncIterator[Service]:
    service = make_service(
        expert_timeout_s=expert_timeout_s, mask_timeout_s=mask_timeout_s, **limits
    )
    engine, transport = service.engine, service.transport
    vocabulary = Vocabulary(
        size=VOCAB, has_tokens=False, missing_ids=(), default_stops=frozenset({EOS})
    )
    service.servicer = AttentionServicer(
        engine,
        vocabulary=vocabulary,
        grammars=GrammarCompiler(Path(), vocabulary),
        readiness=transport.ready,
        activations=service.activations,
        status=attention_pb2.GetStatusResponse(
            vocab_size=VOCAB,
            max_model_len=CONTEXT,
            default_timeout_ms=int(request_timeout_s * 1e3),
        ),
    )
    server = GrpcHost(Address(host="127.0.0.1", port=0), tls=tls)
    attention_pb2_grpc.add_AttentionServicer_to_server(service.servicer, server.server)
    await server.start([SERVICE])
    service.address = str(server.address)
    stepping = asyncio.create_task(engine.run())
    try:
        yield service
    finally:
        stepping.cancel()
        await server.stop(0)
        service.thread.shutdown()


def request(
    prompt: list[int] | None = None, emitted: list[int] | None = None, **fields: Any
) -> attention_pb2.GenerateRequest:
    """A greedy request that no stop id ends; SequenceParams' fields and the request's own."""
    known = {"top_p": 1.0, "repetition_penalty": 1.0, "max_tokens": 10, "ignore_eos": True}
    own = {f.name for f in attention_pb2.GenerateRequest.DESCRIPTOR.fields}
    outer = {name: value for name, value in fields.items() if name in own}
    inner = {name: value for name, value in fields.items() if name not in own}
    return attention_pb2.GenerateRequest(
        prompt_token_ids=[5, 6, 7] if prompt is None else prompt,
        emitted_token_ids=emitted or [],
        sampling=attention_pb2.SamplingParams(**{**known, **inner}),
        **outer,
    )


class Heard:
    """All events of one call, checked while they come."""

    def __init__(self, first_index: int = 0):
        self.tokens: list[int] = []
        self.events = 0
        self.finished: attention_pb2.Finished | None = None
        self._next = first_index

    def take(self, response: attention_pb2.GenerateResponse) -> None:
        assert self.finished is None, "an event after the terminal one"
        if response.WhichOneof("event") == "finished":
            self.finished = response.finished
            return
        assert response.tokens.index == self._next
        assert response.tokens.token_ids
        self.tokens += response.tokens.token_ids
        self._next += len(response.tokens.token_ids)
        self.events += 1

    @property
    def reason(self) -> str:
        assert self.finished is not None, "no terminal event"
        name = attention_pb2.FinishReason.Name(self.finished.reason)
        return name.removeprefix("FINISH_REASON_")


@contextlib.asynccontextmanager
async def stub_of(
    service: Service, tls: TlsFiles | None = None
) -> AsyncIterator[attention_pb2_grpc.AttentionStub]:
    async with open_channel(service.address, tls=tls, server_role="attention") as channel:
        yield attention_pb2_grpc.AttentionStub(channel)


async def heard(stub: attention_pb2_grpc.AttentionStub, message: Any) -> Heard:
    """Listen to a whole call."""
    listener = Heard(len(message.emitted_token_ids))
    async for response in stub.Generate(message, timeout=WAIT_S):
        listener.take(response)
    assert listener.finished is not None
    return listener
