"""A router on the test's own loop, and members made of frames."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc.aio

from protos import (
    attention_pb2,
    attention_pb2_grpc,
    expert_pb2,
    expert_pb2_grpc,
    router_pb2,
    router_pb2_grpc,
)
from router_svc.config import RouterConfig
from router_svc.service import RouterService
from rpc.channel import Access, open_channel
from rpc.mesh.pieces import Pieces

WAIT_S = 15.0
LAYERS, EXPERTS = 3, 8
POOL = router_pb2.MEMBER_ROLE_POOL
ATTENTION = router_pb2.MEMBER_ROLE_ATTENTION
READY = router_pb2.MEMBER_STATE_READY
EVERYTHING = Pieces.all_of(LAYERS, EXPERTS)


@contextlib.asynccontextmanager
async def running_router(**flags: Any) -> AsyncIterator[RouterService]:
    flags = {"listen": "127.0.0.1:0", "ops_listen": "127.0.0.1:0", "lease_ms": 5000, **flags}
    service = RouterService(RouterConfig(**flags))
    await service.start()
    task = asyncio.create_task(service.work())
    try:
        yield service
    finally:
        await service.stop()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.asynccontextmanager
async def stub_of(
    service: RouterService, access: Access | None = None
) -> AsyncIterator[router_pb2_grpc.RouterStub]:
    async with open_channel(str(service.address), tls=access, server_role="router") as channel:
        yield router_pb2_grpc.RouterStub(channel)


@contextlib.asynccontextmanager
async def listening() -> AsyncIterator[str]:
    """A TCP port that answers the router's dial-back."""
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with server:
        yield f"{host}:{port}"


class _Answering(expert_pb2_grpc.ExpertPoolServicer, attention_pb2_grpc.AttentionServicer):
    """A member's server that answers with given statements about itself."""

    def __init__(self, member_id: str, incarnation: int, pieces: Pieces, checkpoint_id: str):
        self._known = {"incarnation": incarnation, "checkpoint_id": checkpoint_id}
        self._id, self._pieces = member_id, pieces

    async def DescribePool(self, request: Any, context: Any) -> expert_pb2.DescribePoolResponse:
        pieces = self._pieces.to_message()
        hello = expert_pb2.PoolHello(pool_id=self._id, pieces=pieces, **self._known)
        return expert_pb2.DescribePoolResponse(hello=hello)

    async def GetStatus(self, request: Any, context: Any) -> attention_pb2.GetStatusResponse:
        return attention_pb2.GetStatusResponse(attention_id=self._id, **self._known)


@contextlib.asynccontextmanager
async def answering(
    member_id: str = "pool-a",
    incarnation: int = 1,
    pieces: Pieces = EVERYTHING,
    checkpoint_id: str = "sha256:one",
) -> AsyncIterator[str]:
    """A member's own port, as far as the router asks it."""
    server = grpc.aio.server()
    servicer = _Answering(member_id, incarnation, pieces, checkpoint_id)
    expert_pb2_grpc.add_ExpertPoolServicer_to_server(servicer, server)
    attention_pb2_grpc.add_AttentionServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


def register(member_id: str = "pool-a", **fields: Any) -> router_pb2.Register:
    """A registration of one process. Registrations that differ only in address are its streams."""
    fields = {
        "process_key": b"process %d" % fields.get("incarnation", 1),
        "role": POOL,
        "incarnation": 1,
        "address": "127.0.0.1:9",
        "checkpoint_id": "sha256:one",
        "num_layers": LAYERS,
        "num_experts": EXPERTS,
        "protocol_major": 1,
        **fields,
    }
    return router_pb2.Register(member_id=member_id, **fields)


def offer(
    available: Pieces = EVERYTHING, requested: Pieces | None = None, capacity: int = 0
) -> router_pb2.PoolOffer:
    return router_pb2.PoolOffer(
        available=available.to_message(),
        requested=requested.to_message() if requested else None,
        capacity_pieces=capacity,
    )


def status(ready: Pieces | None = None, **fields: Any) -> router_pb2.JoinRequest:
    """A READY status holding `ready`."""
    fields = {"state": READY, **fields}
    message = (ready or Pieces()).to_message()
    return router_pb2.JoinRequest(status=router_pb2.MemberStatus(ready=message, **fields))


def pieces_of(message: Any) -> Pieces:
    return Pieces.from_message(message, num_layers=LAYERS, num_experts=EXPERTS)


class Joined:
    """A Join stream driven frame by frame."""

    def __init__(self, stub: router_pb2_grpc.RouterStub):
        self.call = stub.Join(timeout=60)

    async def say(self, frame: router_pb2.JoinRequest | router_pb2.Register) -> None:
        if isinstance(frame, router_pb2.Register):
            frame = router_pb2.JoinRequest(register=frame)
        await asyncio.wait_for(self.call.write(frame), WAIT_S)

    async def hear(self, kind: str) -> Any:
        """The next frame, which must be of this kind."""
        response = await asyncio.wait_for(self.call.read(), WAIT_S)
        assert response is not grpc.aio.EOF, await self.outcome()
        assert response.WhichOneof("frame") == kind
        return getattr(response, kind)

    async def outcome(self) -> tuple[grpc.StatusCode, str]:
        """How the stream ends; reads what still comes."""
        async with asyncio.timeout(WAIT_S):
            with contextlib.suppress(grpc.aio.AioRpcError):
                while await self.call.read() is not grpc.aio.EOF:
                    pass
            return await self.call.code(), await self.call.details()


async def topology_where(
    stub: router_pb2_grpc.RouterStub, holds: Callable[[router_pb2.Topology], bool]
) -> router_pb2.Topology:
    """Ask until the topology is as wanted."""
    async with asyncio.timeout(WAIT_S):
        while True:
            answer = await stub.GetTopology(router_pb2.GetTopologyRequest(), timeout=5)
            if holds(answer.topology):
                return answer.topology
            await asyncio.sleep(0.02)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.01)


def uncovered(router: RouterService) -> int | None:
    """Uncovered pieces of the newest snapshot; None before the mesh has a model."""
    latest = router.mesh.book.latest
    return latest.uncovered_pieces if latest is not None and latest.checkpoint_id else None
