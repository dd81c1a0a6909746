"""How does the gateway's code reach an attention servicer in this very process? No port, no gRPC.

`gateway.generate.stream.generate` asks an `AttentionPool` for a replica and calls `Generate` on its
stub. Here there is one replica, and its stub calls the servicer.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, NoReturn

import grpc
import grpc.aio

from attention_svc.servicer import AttentionServicer
from gateway.generate.pool import AttentionPool
from gateway.generate.replica import Replica
from protos import attention_pb2

_NOWHERE = "127.0.0.1:1"


def local_pool(
    servicer: AttentionServicer, status: attention_pb2.GetStatusResponse
) -> AttentionPool:
    """A pool that is never started: its one replica is ready, and is this process. `stop` it."""
    pool = AttentionPool(lambda: (), vocab_size=status.vocab_size, tls=None)
    replica = Replica(_NOWHERE, None)  # its channel connects when it is used, which is never
    stub: Any = _LocalStub(servicer)  # as much of an AttentionStub as is used
    replica.stub = stub
    replica.status = status
    replica.not_ready_reason = None
    pool.adopt(replica)
    return pool


class _LocalStub:
    def __init__(self, servicer: AttentionServicer):
        self._servicer = servicer

    def Generate(self, request: attention_pb2.GenerateRequest) -> "_LocalCall":
        return _LocalCall(self._servicer.Generate(request, LocalContext()))


class _LocalCall:
    """As much of a streaming call as `generate` uses."""

    def __init__(self, events: AsyncIterator[attention_pb2.GenerateResponse]):
        self._events: Any = events
        self._closing: asyncio.Future[None] | None = None

    def __aiter__(self) -> AsyncIterator[attention_pb2.GenerateResponse]:
        return self._events

    async def initial_metadata(self) -> grpc.aio.Metadata:
        """Nothing, as of a service that says with its first event that it took a grammar."""
        return grpc.aio.Metadata()

    def done(self) -> bool:
        return False

    def cancel(self) -> None:
        """Frees the sequence; nothing to do where the events have ended."""
        self._closing = asyncio.ensure_future(self._events.aclose())


class LocalContext:
    """What a servicer sees as its RPC."""

    def __init__(self) -> None:
        self.initial_metadata: tuple[tuple[str, str], ...] = ()

    async def send_initial_metadata(self, metadata: tuple[tuple[str, str], ...]) -> None:
        self.initial_metadata = metadata

    async def abort(self, code: grpc.StatusCode, details: str = "") -> NoReturn:
        nothing = grpc.aio.Metadata()
        raise grpc.aio.AioRpcError(code, nothing, nothing, details=details)
