"""Callers that send too much, never read, or only open streams do not keep others out."""

import asyncio
import contextlib
from typing import Any

import grpc
import pytest

from expert_svc.servicer import MAX_INFLIGHT_CALLS, ExpertServicer
from protos import expert_pb2, expert_pb2_grpc
from rpc.access.guard import CallBounds
from rpc.channel import open_channel
from tests.support.expert_svc.execute_harness import (
    ROWS,
    calling,
    routed_frame,
    running_pool,
    with_bystander,
)


async def test_a_flood_of_tiny_frames_does_not_hold_up_another_caller():
    async with running_pool() as pool, with_bystander(pool) as (caller, bystander):

        async def flood() -> None:
            for nonce in range(1000):
                await caller.send(ping=expert_pb2.Ping(nonce=nonce))
                await caller.send(cancel=expert_pb2.Cancel(call_id=nonce))
                await caller.send()

        async def drain() -> None:
            for nonce in range(1000):
                assert (await caller.read()).pong.nonce == nonce

        both = asyncio.gather(flood(), drain())
        for _ in range(20):
            await bystander.still_served()
        await both


async def test_a_caller_that_never_reads_is_held_back():
    """Its answers must not pile up in the pool's memory."""
    async with running_pool(inline_rows=0) as pool, with_bystander(pool) as (caller, bystander):

        async def flood() -> None:
            for call_id in range(1, 100_000):
                frame = routed_frame(call_id, 32, combine=ROWS)[0]
                await caller.stream.write(expert_pb2.ExecuteRequest(execute=frame))
                while pool.servicer._executor.waiting:  # never beyond the credit
                    await asyncio.sleep(0.0005)

        flooding = asyncio.create_task(flood())
        done = -1
        while pool.servicer.calls_total != done:
            done = pool.servicer.calls_total
            await asyncio.sleep(0.5)
        unsent = max(stream.writer.unsent for stream in pool.servicer.streams)
        assert 0 < unsent <= 2 * MAX_INFLIGHT_CALLS
        assert not flooding.done()
        await bystander.still_served()
        flooding.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await flooding


@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.slow)])
async def test_silent_streams_leave_the_others_served(count: int, monkeypatch: pytest.MonkeyPatch):
    """Row H2 in full; streams beyond a connection's bound are refused (test_call_guard.py)."""
    opened = 0
    greet = ExpertServicer._greet

    async def counted(servicer: ExpertServicer, context: Any) -> Any:
        nonlocal opened
        opened += 1
        return await greet(servicer, context)

    monkeypatch.setattr(ExpertServicer, "_greet", counted)
    monkeypatch.setattr("expert_svc.servicer.HELLO_TIMEOUT_S", 120)
    bounds = CallBounds(per_connection=100)
    async with (
        running_pool(bounds=bounds) as pool,
        calling(pool.address) as other,
        open_channel(pool.address, tls=None, server_role="expert") as channel,
    ):
        stub = expert_pb2_grpc.ExpertPoolStub(channel)
        silent: list[Any] = []
        while len(silent) < count:
            silent += [stub.Execute() for _ in range(500)]
            async with asyncio.timeout(60):
                while sum(stream.done() for stream in silent) < len(silent) - 100:
                    await asyncio.sleep(0.01)
        assert opened <= 101  # and the other caller's
        refused = {await stream.code() for stream in silent if stream.done()}
        assert refused == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert (await asyncio.wait_for(other.result_of(other.call()), 20)).call_id == 1
        for stream in silent:
            stream.cancel()
