"""A link notices a pool that is silent, broken or wrong, and comes back by itself."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc.aio
import pytest

from attention_svc import pool_link
from attention_svc.metrics import AttentionMetrics
from attention_svc.pool_link import Answer, CallFailed, Outcome, PoolLink
from protos import expert_pb2, expert_pb2_grpc
from rpc.config import PROTOCOL_MAJOR, Address
from rpc.hop_codec import HopCodec
from rpc.server import GrpcHost

Behaviour = Callable[[Any], Awaitable[None]]


class ScriptedPool(expert_pb2_grpc.ExpertPoolServicer):
    """Says hello, then does what the test wants with the stream."""

    def __init__(self, behaviour: Behaviour, **hello: Any):
        self.behaviour = behaviour
        self.streams = 0
        self.hello = expert_pb2.PoolHello(
            **{
                "protocol_major": PROTOCOL_MAJOR,
                "checkpoint_id": "c",
                "pool_id": "p",
                "credit": expert_pb2.Credit(max_inflight_calls=2, max_inflight_rows=10),
                **hello,
            }
        )

    async def Execute(self, request_iterator: Any, context: Any) -> None:
        self.streams += 1
        await context.read()
        await context.write(expert_pb2.ExecuteResponse(hello=self.hello))
        await self.behaviour(context)


@contextlib.asynccontextmanager
async def linked(pool: ScriptedPool) -> AsyncIterator[tuple[PoolLink, asyncio.Queue[bool]]]:
    """A link to a server with this pool, and the link's changes of usability."""
    host = GrpcHost(Address(host="127.0.0.1", port=0), tls=None)
    expert_pb2_grpc.add_ExpertPoolServicer_to_server(pool, host.server)
    await host.start(["expertmesh.expert.v1.ExpertPool"])
    changes: asyncio.Queue[bool] = asyncio.Queue()
    link = PoolLink(
        "p", str(host.address), caller_id="t", checkpoint_id="c", num_layers=1, num_experts=4,
        tls=None, metrics=AttentionMetrics(1, 4), codec=HopCodec.best(),
        on_change=lambda: changes.put_nowait(link.usable),
    )  # fmt: skip
    link.start()
    try:
        yield link, changes
    finally:
        await link.stop()
        await host.stop(0)


def send(link: PoolLink, frame: Any, call_id: int, rows: int) -> "asyncio.Future[Answer]":
    """Put a call on the link; its outcome as a future."""
    future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def done(outcome: Outcome) -> None:
        if future.done():  # cancelled at the test's end
            return
        if isinstance(outcome, CallFailed):
            future.set_exception(outcome)
            future.exception()  # looked at: not every test awaits each of its calls
        else:
            future.set_result(outcome)

    link.execute(frame, call_id, rows, done)
    return future


async def next_change(changes: "asyncio.Queue[bool]") -> bool:
    return await asyncio.wait_for(changes.get(), 10)


async def forever(context: Any) -> None:
    await asyncio.sleep(60)


def a_call(call_id: int) -> expert_pb2.ExecuteRequest:
    return expert_pb2.ExecuteRequest(execute=expert_pb2.Execute(call_id=call_id))


async def test_silent_pool_is_given_up_and_dialled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_link, "PING_INTERVAL_S", 0.05)
    monkeypatch.setattr(pool_link, "SILENCE_LIMIT_S", 0.3)
    pool = ScriptedPool(forever)
    async with linked(pool) as (link, changes):
        assert await next_change(changes) is True
        call = send(link, a_call(1), 1, 1)
        assert await next_change(changes) is False
        with pytest.raises(CallFailed, match="silent"):
            await call
        assert await next_change(changes) is True
        assert pool.streams == 2


async def test_stream_that_ends_fails_its_calls_at_once_and_comes_back() -> None:
    async def one_call(context: Any) -> None:
        while (await context.read()).WhichOneof("frame") != "execute":
            pass
        await context.abort(grpc.StatusCode.UNAVAILABLE, "gone fishing")

    async with linked(ScriptedPool(one_call)) as (link, changes):
        assert await next_change(changes) is True
        call = send(link, a_call(1), 1, 1)
        with pytest.raises(CallFailed, match="gone fishing"):
            await asyncio.wait_for(call, 5)
        assert await next_change(changes) is False
        assert await next_change(changes) is True


@pytest.mark.parametrize(
    "wrong", [{"checkpoint_id": "other"}, {"pool_id": "q"}, {"protocol_major": 99}], ids=str
)
async def test_pool_that_is_another_one_never_becomes_usable(wrong: dict[str, Any]) -> None:
    pool = ScriptedPool(forever, **wrong)
    async with linked(pool) as (link, changes):
        while pool.streams < 2:
            await asyncio.sleep(0.02)
        assert changes.empty()
        with pytest.raises(CallFailed, match="not connected"):
            await send(link, a_call(1), 1, 1)


async def test_credit_is_never_exceeded_and_comes_back_with_the_answer() -> None:
    """An abandoned call counts until the pool has answered it: the pool counts it, too."""
    cancelled = asyncio.Event()

    async def answer_cancels(context: Any) -> None:
        while (frame := await context.read()) is not grpc.aio.EOF:
            if frame.WhichOneof("frame") == "cancel":
                await cancelled.wait()
                error = expert_pb2.Error(
                    call_id=frame.cancel.call_id, code=expert_pb2.ERROR_CODE_CANCELLED
                )
                await context.write(expert_pb2.ExecuteResponse(error=error))

    async with linked(ScriptedPool(answer_cancels)) as (link, changes):
        assert await next_change(changes) is True
        send(link, a_call(1), 1, 4)
        with pytest.raises(CallFailed, match="credit"):
            await send(link, a_call(2), 2, 7)
        send(link, a_call(2), 2, 6)
        link.abandon(1)
        link.abandon(1)
        link.abandon(2)
        with pytest.raises(CallFailed, match="credit"):
            await send(link, a_call(3), 3, 1)
        cancelled.set()
        async with asyncio.timeout(5):
            while send(link, a_call(4), 4, 10).done():  # refused at once
                await asyncio.sleep(0.01)


async def test_late_answer_of_an_abandoned_call_is_ignored() -> None:
    answers: list[int] = []

    async def late(context: Any) -> None:
        while True:
            frame = await context.read()
            if frame is grpc.aio.EOF:
                return
            if frame.WhichOneof("frame") == "execute":
                call_id = frame.execute.call_id
                if call_id == 2:  # the first answer comes after the second call, twice
                    for answered in (1, 1, 2):
                        result = expert_pb2.Result(call_id=answered, queue_us=answered)
                        await context.write(expert_pb2.ExecuteResponse(result=result))

    async with linked(ScriptedPool(late)) as (link, changes):
        assert await next_change(changes) is True
        send(link, a_call(1), 1, 1)
        link.abandon(1)
        call = send(link, a_call(2), 2, 1)
        answer = await asyncio.wait_for(call, 5)
        answers.append(answer.result.queue_us)
    assert answers == [2]
