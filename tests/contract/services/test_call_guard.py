"""Every method of every gRPC service checks roles, then bounds, then whether it got a message."""

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos import expert_pb2, expert_pb2_grpc
from rpc.access.guard import CallBounds
from rpc.access.tls import TlsFiles
from rpc.channel import open_channel
from tests.support.expert_svc.execute_harness import caller_hello, calling, running_pool
from tests.support.guarded_services import METHOD_IDS, METHODS, SERVICES, serving
from tests.support.mesh_certificates import Authority

GARBAGE = b"\xff\xff\xff garbage"
WAIT_S = 20.0


async def answer_to(
    address: str, role: str, path: str, method: Any, data: bytes, tls: TlsFiles | None = None
) -> tuple[grpc.StatusCode, str]:
    """How the method answers one message of these bytes."""
    async with open_channel(address, tls=tls, server_role=role) as channel:
        kind = ("stream_" if method.client_streaming else "unary_") + (
            "stream" if method.server_streaming else "unary"
        )
        stub = getattr(channel, kind)(path)
        call = stub(timeout=WAIT_S) if method.client_streaming else stub(data, timeout=WAIT_S)
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            if method.client_streaming:
                await call.write(data)
            if method.server_streaming:
                while await call.read() is not grpc.aio.EOF:
                    pass
            else:
                await call
        return await call.code(), await call.details()


@pytest.mark.parametrize("role, path, method", METHODS, ids=METHOD_IDS)
async def test_bytes_that_are_no_message_are_an_invalid_argument_without_a_log_line(
    role: str, path: str, method: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(role) as address:
        caplog.set_level(logging.WARNING)
        caplog.clear()
        code, details = await answer_to(address, role, path, method, GARBAGE)
    assert code is grpc.StatusCode.INVALID_ARGUMENT, details
    assert "unreadable" in details
    assert [r for r in caplog.records if "garbage" in r.getMessage() or r.exc_info] == []
    assert [r for r in caplog.records if r.levelno >= logging.ERROR] == []


@pytest.mark.parametrize("role, path, method", METHODS, ids=METHOD_IDS)
async def test_a_role_that_may_not_call_is_told_so_before_its_bytes_are_read(
    role: str, path: str, method: Any, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    servicer = SERVICES[role][2]
    allowed = getattr(servicer, method.name).allowed_roles
    stranger = next(r for r in ("expert", "gateway", "attention") if r not in allowed)
    async with serving(role, authority) as address:
        tls = authority.issue(stranger)
        code, details = await answer_to(address, role, path, method, GARBAGE, tls)
    assert code is grpc.StatusCode.PERMISSION_DENIED, details


def test_every_method_says_who_may_call_it() -> None:
    for role, path, method in METHODS:
        roles = getattr(getattr(SERVICES[role][2], method.name), "allowed_roles", ())
        assert roles, f"{path} would refuse everyone"


async def test_streams_beyond_the_bound_of_a_connection_are_refused_and_the_others_live_on() -> (
    None
):
    """An Execute stream each; the connection is the same for all."""
    bounds = CallBounds(per_connection=20)
    async with (
        running_pool(bounds=bounds) as pool,
        calling(pool.address) as other,
        open_channel(pool.address, tls=None, server_role="expert") as channel,
    ):
        stub = expert_pb2_grpc.ExpertPoolStub(channel)
        streams = [stub.Execute() for _ in range(500)]
        waiting = [asyncio.ensure_future(stream.code()) for stream in streams]
        async with asyncio.timeout(WAIT_S):
            while sum(code.done() for code in waiting) < 480:
                await asyncio.sleep(0.01)
        refused = [code.result() for code in waiting if code.done()]
        assert set(refused) == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        kept = [stream for stream, code in zip(streams, waiting, strict=True) if not code.done()]
        # 20, or 19 where gRPC let the other caller share the connection.
        assert 19 <= len(kept) <= 20
        await kept[0].write(expert_pb2.ExecuteRequest(hello=caller_hello()))
        assert (await asyncio.wait_for(kept[0].read(), WAIT_S)).WhichOneof("frame") == "hello"
        assert (await asyncio.wait_for(other.result_of(other.call()), WAIT_S)).call_id == 1
        for stream in kept:
            stream.cancel()
        async with asyncio.timeout(WAIT_S):  # ended streams are no longer counted
            while len(pool.servicer.streams) > 1:
                await asyncio.sleep(0.01)
        again = stub.Execute()
        await again.write(expert_pb2.ExecuteRequest(hello=caller_hello()))
        assert (await asyncio.wait_for(again.read(), WAIT_S)).WhichOneof("frame") == "hello"


@pytest.mark.parametrize("role", SERVICES)
async def test_calls_that_send_no_message_are_counted_and_end(
    role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gRPC alone would wait for their message for ever without counting them."""
    monkeypatch.setattr("rpc.access.guard.MESSAGE_TIMEOUT_S", 0.5)
    unary = next(path for r, path, m in METHODS if r == role and not m.client_streaming)
    async with (
        serving(role) as address,
        open_channel(address, tls=None, server_role=role) as channel,
    ):
        calls = [channel.stream_stream(unary)(timeout=WAIT_S) for _ in range(400)]
        codes = await asyncio.gather(*(call.code() for call in calls))
        assert set(codes) <= {
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            grpc.StatusCode.INVALID_ARGUMENT,
        }
        assert grpc.StatusCode.INVALID_ARGUMENT in codes


async def test_health_is_answered_when_a_connection_is_at_its_bound() -> None:
    async with (
        running_pool(bounds=CallBounds(per_connection=3, total=3)) as pool,
        open_channel(pool.address, tls=None, server_role="expert") as channel,
    ):
        stub = expert_pb2_grpc.ExpertPoolStub(channel)
        streams = [stub.Execute() for _ in range(3)]
        for stream in streams:
            await stream.write(expert_pb2.ExecuteRequest(hello=caller_hello()))
            await asyncio.wait_for(stream.read(), WAIT_S)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.DescribePool(expert_pb2.DescribePoolRequest(), timeout=WAIT_S)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        health = health_pb2_grpc.HealthStub(channel)
        reply = await health.Check(health_pb2.HealthCheckRequest(), timeout=WAIT_S)
        assert reply.status in (health_pb2.HealthCheckResponse.SERVING, 2)
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        with pytest.raises(grpc.aio.AioRpcError) as unreadable:
            await check(GARBAGE, timeout=WAIT_S)
        assert unreadable.value.code() is grpc.StatusCode.INVALID_ARGUMENT
