"""A real expert pool on a real aio server, and callers made of frames."""

import asyncio
import contextlib
import functools
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np
import torch
from torch import Tensor

from expert_svc.canary import Canary
from expert_svc.compute import run_call
from expert_svc.executor import Executor
from expert_svc.metrics import ExpertMetrics
from expert_svc.servicer import ExpertServicer, PoolIdentity
from expert_svc.weight_store import WeightStore
from moe_model.backends.backend import Backend
from moe_model.backends.choice import choose_backend
from moe_model.maths.experts import ExpertWeights, run_experts
from moe_model.reference import load_experts
from moe_model.tiny import write_tiny
from moe_model.weights.checkpoint import Checkpoint
from moe_model.weights.manifest import Manifest, build_manifest
from protos import expert_pb2, expert_pb2_grpc
from rpc.access.tls import TlsFiles
from rpc.channel import open_channel
from rpc.config import Address
from rpc.hop.codec import HopCodec
from rpc.hop.tensor_codec import decode, encode
from rpc.mesh.pieces import Pieces
from rpc.process.server import GrpcHost

torch.set_num_threads(1)  # such small sizes are slower with more threads

WAIT_S = 15.0
MAX_ROWS = 64
INLINE_ROWS = 8
"""Calls with more rows go through the queue and the compute thread."""
LAYERS, EXPERTS, TOP_K, D = 2, 8, 3, 24
NOT_HELD = 7
"""The expert of the last layer that the pool does not hold."""
SERVICE = "expertmesh.expert.v1.ExpertPool"
DECODE, PREFILL = expert_pb2.PHASE_DECODE, expert_pb2.PHASE_PREFILL
SUM, ROWS = expert_pb2.COMBINE_SUM, expert_pb2.COMBINE_ROWS


@functools.cache
def tiny() -> tuple[Checkpoint, Manifest]:
    """One checkpoint for all tests; its files stay mapped after the folder is deleted."""
    with tempfile.TemporaryDirectory() as folder:
        write_tiny(
            Path(folder),
            seed=3,
            hidden_size=D,
            num_hidden_layers=LAYERS,
            intermediate_size=20,
            num_local_experts=EXPERTS,
            num_experts_per_tok=TOP_K,
            vocab_size=32,
        )
        checkpoint = Checkpoint.open(Path(folder))
        return checkpoint, build_manifest(checkpoint)


@functools.cache
def weights_of(layer_idx: int, dtype: torch.dtype = torch.float32) -> ExpertWeights:
    return load_experts(tiny()[0], layer_idx, dtype)


class Pool:
    """What a running pool's tests look at."""

    def __init__(self, servicer: ExpertServicer, store: WeightStore, canary: Canary, address: str):
        self.servicer = servicer
        self.canary = canary
        self.store = store
        self.address = address


@contextlib.asynccontextmanager
async def running_pool(
    *,
    dtype: torch.dtype = torch.float32,
    backend: Backend | None = None,
    compute: Any = None,
    tls: TlsFiles | None = None,
    inline_rows: int = INLINE_ROWS,
    codec: HopCodec | None = None,
    **host: Any,
) -> AsyncIterator[Pool]:
    """It holds everything but the last layer's last expert."""
    checkpoint, manifest = tiny()
    store = WeightStore(checkpoint, manifest, backend or choose_backend(dtype))
    store.load(Pieces.all_of(LAYERS, EXPERTS) - Pieces([(LAYERS - 1, NOT_HELD)]))
    executor = Executor(compute or (lambda call: run_call(call, store)), inline_rows=inline_rows)
    identity = PoolIdentity(
        pool_id="pool-a", incarnation=7, checkpoint_id=manifest.checkpoint_id, numerics_id="test"
    )
    metrics = ExpertMetrics()
    canary = Canary(store, executor, metrics, period_s=0)
    servicer = ExpertServicer(
        identity,
        store,
        executor,
        metrics,
        codec or HopCodec.best(),
        max_rows=MAX_ROWS,
        try_experts=canary.try_now,
    )
    server = GrpcHost(Address(host="127.0.0.1", port=0), tls=tls, **host)
    servicer.add_to(server.server)
    await server.start([SERVICE])
    queue = asyncio.create_task(executor.run())
    try:
        yield Pool(servicer, store, canary, str(server.address))
    finally:
        queue.cancel()
        await server.stop(0)
        executor.close()


class Caller:
    """One Execute stream, frame by frame."""

    def __init__(self, stream: Any):
        self.stream = stream
        self._next_id = 0
        self.pool_hello: expert_pb2.PoolHello | None = None

    async def send(self, **frame: Any) -> None:
        await asyncio.wait_for(self.stream.write(expert_pb2.ExecuteRequest(**frame)), WAIT_S)

    async def read(self) -> Any:
        return await asyncio.wait_for(self.stream.read(), WAIT_S)

    async def hello(self, **fields: Any) -> expert_pb2.PoolHello:
        await self.send(hello=caller_hello(**fields))
        response = await self.read()
        assert response.WhichOneof("frame") == "hello"
        self.pool_hello = response.hello
        return response.hello

    async def result_of(self, frame: expert_pb2.Execute) -> expert_pb2.Result:
        response = await self.exchange(frame)
        assert response.WhichOneof("frame") == "result", response
        assert response.result.call_id == frame.call_id
        return response.result

    async def error_of(self, frame: expert_pb2.Execute) -> expert_pb2.Error:
        response = await self.exchange(frame)
        assert response.WhichOneof("frame") == "error", response
        assert response.error.call_id == frame.call_id
        return response.error

    async def exchange(self, frame: expert_pb2.Execute) -> expert_pb2.ExecuteResponse:
        await self.send(execute=frame)
        return await self.read()

    def call(self, **changes: Any) -> expert_pb2.Execute:
        """A sound call of two rows with a fresh call_id, changed as told."""
        self._next_id += 1
        return execute_frame(**{"call_id": self._next_id, **changes})

    async def ended(self) -> tuple[grpc.StatusCode, str]:
        """Reads to the stream's end; its status."""
        with contextlib.suppress(grpc.aio.AioRpcError):
            while await self.read() is not grpc.aio.EOF:
                pass
        code = await asyncio.wait_for(self.stream.code(), WAIT_S)
        return code, await self.stream.details()


@contextlib.asynccontextmanager
async def calling(
    address: str, *, hello: bool = True, tls: TlsFiles | None = None
) -> AsyncIterator[Caller]:
    async with open_channel(address, tls=tls, server_role="expert") as channel:
        caller = Caller(expert_pb2_grpc.ExpertPoolStub(channel).Execute())
        if hello:
            await caller.hello()
        try:
            yield caller
        finally:
            caller.stream.cancel()


def caller_hello(**fields: Any) -> expert_pb2.CallerHello:
    known = {"protocol_major": 1, "checkpoint_id": tiny()[1].checkpoint_id, "caller_id": "test"}
    return expert_pb2.CallerHello(**{**known, **fields})


def hidden_rows(num_rows: int, seed: int = 0) -> Tensor:
    return torch.randn(num_rows, D, generator=torch.Generator().manual_seed(seed))


def int32(values: Sequence[int]) -> bytes:
    return np.array(values, "<i4").tobytes()


def float32(values: Sequence[float]) -> bytes:
    return np.array(values, "<f4").tobytes()


def routed(
    num_rows: int, seed: int = 0, experts: Sequence[int] = range(EXPERTS)
) -> tuple[Tensor, Tensor]:
    """Random ascending ids [N, K] and weights [N, K]."""
    generator = torch.Generator().manual_seed(seed)
    allowed = torch.tensor(list(experts))
    chosen = [
        allowed[torch.randperm(len(allowed), generator=generator)[:TOP_K]] for _ in range(num_rows)
    ]
    ids = torch.stack(chosen).sort(dim=1).values
    return ids, torch.rand(ids.shape, generator=generator)


def execute_frame(**changes: Any) -> expert_pb2.Execute:
    """Two rows, [0, 2, 5] and [1, 2, 6], in layer 0."""
    fields: dict[str, Any] = {
        "call_id": 1,
        "layer_idx": 0,
        "phase": DECODE,
        "timeout_ms": 10_000,
        "combine": SUM,
        "hidden": encode(hidden_rows(2)),
        "row_splits": int32([0, 3, 6]),
        "expert_ids": int32([0, 2, 5, 1, 2, 6]),
        "weights": float32([0.5, 0.25, 0.25, 0.125, 0.5, 0.375]),
    }
    return expert_pb2.Execute(**{**fields, **changes})


def routed_frame(call_id: int, num_rows: int, *, seed: int = 0, **changes: Any) -> Any:
    """(frame, the reference's sums) of random rows with K pairs each."""
    hidden = hidden_rows(num_rows, seed)
    ids, weights = routed(num_rows, seed)
    frame = execute_frame(
        call_id=call_id,
        hidden=encode(hidden),
        row_splits=int32(range(0, num_rows * TOP_K + 1, TOP_K)),
        expert_ids=int32(ids.flatten().tolist()),
        weights=float32(weights.flatten().tolist()),
        **changes,
    )
    return frame, run_experts(hidden, ids, weights, weights_of(0))


EXPECTED_FRAME_IDS = torch.tensor([[0, 2, 5], [1, 2, 6]])
EXPECTED_FRAME_WEIGHTS = torch.tensor([[0.5, 0.25, 0.25], [0.125, 0.5, 0.375]])


def expected_sums(layer_idx: int = 0) -> Tensor:
    """What the reference says about `execute_frame()`."""
    return run_experts(
        hidden_rows(2), EXPECTED_FRAME_IDS, EXPECTED_FRAME_WEIGHTS, weights_of(layer_idx)
    )


def rows_of(result: expert_pb2.Result, *, width: int = D) -> Tensor:
    dtypes = (result.rows.dtype,)
    return decode(result.rows, field="rows", dtypes=dtypes, shape=(-1, width))


class Bystander:
    """A second caller that goes on getting right answers while another misbehaves."""

    def __init__(self, caller: Caller):
        self._caller = caller

    async def still_served(self) -> None:
        result = await self._caller.result_of(self._caller.call())
        assert torch.equal(rows_of(result), expected_sums())


@contextlib.asynccontextmanager
async def with_bystander(pool: Pool, **flags: Any) -> AsyncIterator[tuple[Caller, Bystander]]:
    async with calling(pool.address) as other, calling(pool.address, **flags) as caller:
        yield caller, Bystander(other)
