"""A link survives what a pool does: silence, refusals, other versions, late answers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc.aio
import pytest
import torch

from attention_svc.experts import link as pool_link
from attention_svc.experts.call_outcome import CallAnswered, CallFailed, CallOutcome
from attention_svc.experts.link import PoolLink
from attention_svc.metrics import AttentionMetrics
from protos import expert_pb2, expert_pb2_grpc
from rpc.hop.codec import HopCodec
from rpc.hop.tensor_codec import encode

LAYERS, EXPERTS = 1, 4
Handle = Callable[["FakePool", expert_pb2.ExecuteRequest, Any], Any]


class FakePool(expert_pb2_grpc.ExpertPoolServicer):
    """Says hello, then does with each frame what the test says."""

    def __init__(self) -> None:
        self.handle: Handle | None = None
        self.hello: dict[str, Any] = {}
        self.streams = 0
        self.frames: list[expert_pb2.ExecuteRequest] = []

    async def Execute(self, request_iterator: Any, context: Any) -> None:
        self.streams += 1
        await context.read()
        known = {
            "protocol_major": 1,
            "checkpoint_id": "one",
            "pool_id": "a",
            "credit": expert_pb2.Credit(max_inflight_calls=2, max_inflight_rows=8),
        }
        hello = expert_pb2.PoolHello(**{**known, **self.hello})
        await context.write(expert_pb2.ExecuteResponse(hello=hello))
        while (request := await context.read()) is not grpc.aio.EOF:
            self.frames.append(request)
            if self.handle is not None:
                await self.handle(self, request, context)


@contextlib.asynccontextmanager
async def linked(pool: FakePool) -> AsyncIterator[PoolLink]:
    server = grpc.aio.server()
    expert_pb2_grpc.add_ExpertPoolServicer_to_server(pool, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    link = PoolLink(
        "a",
        f"127.0.0.1:{port}",
        caller_id="test",
        checkpoint_id="one",
        num_layers=LAYERS,
        num_experts=EXPERTS,
        access=None,
        metrics=AttentionMetrics(),
        codec=HopCodec.best(),
        on_change=lambda: None,
    )
    link.start()
    try:
        yield link
    finally:
        await link.stop()
        await server.stop(0)


def send(link: PoolLink, frame: Any, call_id: int, rows: int) -> "asyncio.Future[CallAnswered]":
    """Put a call on the link; its outcome as a future."""
    future: asyncio.Future[CallAnswered] = asyncio.get_running_loop().create_future()

    def done(outcome: CallOutcome) -> None:
        if future.done():  # cancelled at the test's end
            return
        if isinstance(outcome, CallFailed):
            future.set_exception(outcome)
            future.exception()  # looked at: not every test awaits each of its calls
        else:
            future.set_result(outcome)

    link.execute(frame, call_id, rows, done)
    return future


async def until(condition: Callable[[], Any], timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


def call(call_id: int, rows: int = 1) -> tuple[expert_pb2.ExecuteRequest, int, int]:
    frame = expert_pb2.Execute(call_id=call_id, hidden=encode(torch.zeros(rows, 2)))
    return expert_pb2.ExecuteRequest(execute=frame), call_id, rows


async def answer(pool: FakePool, request: expert_pb2.ExecuteRequest, context: Any) -> None:
    if request.WhichOneof("frame") == "execute":
        result = expert_pb2.Result(call_id=request.execute.call_id)
        await context.write(expert_pb2.ExecuteResponse(result=result))


async def test_a_call_is_matched_to_its_answer():
    pool = FakePool()
    pool.handle = answer
    async with linked(pool) as link:
        await until(lambda: link.usable)
        calls = [send(link, *call(i)) for i in (1, 2)]
        assert [(await c).result.call_id for c in calls] == [1, 2]


async def killed(pool: FakePool, request: expert_pb2.ExecuteRequest, context: Any) -> None:
    if request.WhichOneof("frame") == "execute":
        await context.abort(grpc.StatusCode.UNAVAILABLE, "ping timeout: silent")


async def test_a_stream_that_ends_under_a_call_is_broken_whatever_the_words(monkeypatch):
    pool = FakePool()
    pool.handle = killed
    async with linked(pool) as link:
        await until(lambda: link.usable)
        with pytest.raises(CallFailed) as failed:
            await asyncio.wait_for(send(link, *call(1)), 10)
        assert failed.value.kind == "broken"


async def test_a_stream_that_ends_after_pings_without_an_answer_was_unreachable(monkeypatch):
    monkeypatch.setattr(pool_link, "PING_INTERVAL_S", 0.05)
    pool = FakePool()

    async def leave_later(pool: FakePool, request: Any, context: Any) -> None:
        if len(pool.frames) > 5:  # the call and several pings, none of them answered
            await context.abort(grpc.StatusCode.UNAVAILABLE, "connection reset by peer")

    pool.handle = leave_later
    async with linked(pool) as link:
        await until(lambda: link.usable)
        with pytest.raises(CallFailed) as failed:
            await asyncio.wait_for(send(link, *call(1)), 10)
        assert failed.value.kind == "unreachable"


async def test_a_silent_pool_is_given_up_and_dialled_again(monkeypatch):
    """Its connection is alive, but it answers nothing, not even pings."""
    monkeypatch.setattr(pool_link, "PING_INTERVAL_S", 0.05)
    monkeypatch.setattr(pool_link, "SILENCE_LIMIT_S", 0.2)
    pool = FakePool()
    async with linked(pool) as link:
        await until(lambda: link.usable)
        pending = send(link, *call(1))
        with pytest.raises(CallFailed, match="silent"):
            await asyncio.wait_for(pending, 10)
        await until(lambda: pool.streams >= 2)
        pool.handle = _pong
        await until(lambda: link.usable)
        streams = pool.streams
        await asyncio.sleep(0.5)
        assert (link.usable, pool.streams) == (True, streams)


async def _pong(pool: FakePool, request: expert_pb2.ExecuteRequest, context: Any) -> None:
    if request.WhichOneof("frame") == "ping":
        pong = expert_pb2.Pong(nonce=request.ping.nonce)
        await context.write(expert_pb2.ExecuteResponse(pong=pong))


@pytest.mark.parametrize(
    "hello", [{"protocol_major": 2}, {"checkpoint_id": "two"}, {"pool_id": "b"}]
)
async def test_a_pool_that_is_another_one_is_never_used(hello: dict[str, Any]):
    pool = FakePool()
    pool.hello = hello
    async with linked(pool) as link:
        await until(lambda: pool.streams >= 2)
        assert not link.usable
        with pytest.raises(CallFailed, match="not connected"):
            await send(link, *call(1))


async def test_an_answer_that_nobody_asked_for_ends_the_stream_as_corrupt():
    """Otherwise the call it belongs to would wait for its timeout, at first half a minute."""
    pool = FakePool()
    pool.handle = _answer_another
    async with linked(pool) as link:
        await until(lambda: link.usable)
        with pytest.raises(CallFailed, match="call 8, which is not in flight") as failure:
            await asyncio.wait_for(send(link, *call(7)), 5)
        assert failure.value.kind == "corrupt"
        await until(lambda: pool.streams >= 2)
        await until(lambda: link.usable)


async def _answer_another(pool: FakePool, request: expert_pb2.ExecuteRequest, context: Any) -> None:
    if request.WhichOneof("frame") == "execute":
        result = expert_pb2.Result(call_id=request.execute.call_id + 1)
        await context.write(expert_pb2.ExecuteResponse(result=result))


async def test_a_newer_minor_and_its_unknown_frames_are_fine():
    async def handle(pool: FakePool, request: Any, context: Any) -> None:
        await context.write(expert_pb2.ExecuteResponse())
        await answer(pool, request, context)

    pool = FakePool()
    pool.hello = {"protocol_minor": 9}
    pool.handle = handle
    async with linked(pool) as link:
        await until(lambda: link.usable)
        assert (await send(link, *call(1))).result.call_id == 1


async def test_an_error_code_of_a_newer_minor_fails_its_call_only():
    async def handle(pool: FakePool, request: Any, context: Any) -> None:
        error = {"call_id": request.execute.call_id, "code": 99, "message": "new"}
        await context.write(expert_pb2.ExecuteResponse(error=error))

    pool = FakePool()
    pool.handle = handle
    async with linked(pool) as link:
        await until(lambda: link.usable)
        with pytest.raises(CallFailed, match="UNKNOWN: new"):
            await send(link, *call(1))
        assert (link.usable, pool.streams) == (True, 1)


async def test_credit_is_never_exceeded_and_may_change():
    pool = FakePool()
    async with linked(pool) as link:
        await until(lambda: link.usable)
        send(link, *call(1, rows=4))
        with pytest.raises(CallFailed, match="credit"):
            await send(link, *call(2, rows=5))
        send(link, *call(2, rows=4))
        with pytest.raises(CallFailed, match="credit"):
            await send(link, *call(3, rows=0))


async def test_errors_of_strangers_and_late_answers_are_ignored():
    async def handle(pool: FakePool, request: Any, context: Any) -> None:
        if request.WhichOneof("frame") == "cancel":
            late = expert_pb2.Result(call_id=1)
            await context.write(expert_pb2.ExecuteResponse(result=late))
            await context.write(expert_pb2.ExecuteResponse(error={"call_id": 77, "code": 6}))
        elif request.execute.call_id == 2:
            await answer(pool, request, context)

    pool = FakePool()
    pool.handle = handle
    async with linked(pool) as link:
        await until(lambda: link.usable)
        abandoned = send(link, *call(1))
        link.abandon(1)
        assert (await send(link, *call(2))).result.call_id == 2
        assert not abandoned.done()
        assert link.usable


async def test_an_error_frame_and_a_broken_stream_fail_their_calls():
    async def handle(pool: FakePool, request: Any, context: Any) -> None:
        if request.execute.call_id == 1:
            error = {"call_id": 1, "code": expert_pb2.ERROR_CODE_DRAINING, "message": "leaving"}
            await context.write(expert_pb2.ExecuteResponse(error=error))
        elif request.execute.call_id == 2:
            await context.abort(grpc.StatusCode.INTERNAL, "boom")

    pool = FakePool()
    pool.handle = handle
    async with linked(pool) as link:
        await until(lambda: link.usable)
        with pytest.raises(CallFailed, match="DRAINING: leaving"):
            await send(link, *call(1))
        with pytest.raises(CallFailed, match="boom"):
            await send(link, *call(2))
        await until(lambda: link.usable and pool.streams == 2)


async def test_an_abandoned_call_s_credit_comes_back_with_its_answer():
    """It counts until the pool has answered it: the pool counts it, too."""
    may_answer = asyncio.Event()

    async def handle(pool: FakePool, request: Any, context: Any) -> None:
        if request.WhichOneof("frame") == "cancel":
            await may_answer.wait()
            error = {"call_id": request.cancel.call_id, "code": expert_pb2.ERROR_CODE_CANCELLED}
            await context.write(expert_pb2.ExecuteResponse(error=error))

    pool = FakePool()
    pool.handle = handle
    async with linked(pool) as link:
        await until(lambda: link.usable)
        for call_id in (1, 2):
            send(link, *call(call_id, rows=4))
            link.abandon(call_id)
            link.abandon(call_id)
        with pytest.raises(CallFailed, match="credit"):
            await send(link, *call(3))
        may_answer.set()
        await until(lambda: not send(link, *call(4, rows=8)).done())
