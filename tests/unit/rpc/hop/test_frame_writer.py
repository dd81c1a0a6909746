"""Frames leave in order, one write at a time, however long a write waits."""

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest

from rpc.hop.frame_writer import FrameWriter

WAIT_S = 20.0
NUM_FRAMES = 500
METHOD = "/test.Echo/Echo"


async def _at_once(frame: int) -> None:
    """Never waits."""


async def _after_a_turn(frame: int) -> None:
    await asyncio.sleep(0)  # yields nothing to its task


async def _after_a_future(frame: int) -> None:
    await asyncio.sleep(0.0001)


async def _after_both(frame: int) -> None:
    await _after_a_turn(frame)
    await _after_a_future(frame)
    await _after_a_turn(frame)


@pytest.mark.parametrize("wait", [_at_once, _after_a_turn, _after_a_future, _after_both])
async def test_frames_are_written_one_after_the_other(wait: Any):
    written: list[int] = []
    under_way = 0

    async def write(frame: int) -> None:
        nonlocal under_way
        under_way += 1
        assert under_way == 1
        await wait(frame)
        under_way -= 1
        written.append(frame)

    writer = FrameWriter(write)
    for frame in range(20):
        writer.push(frame)
    await asyncio.wait_for(writer.flushed(), WAIT_S)
    assert written == list(range(20))


async def test_nothing_is_written_after_a_write_has_failed():
    async def write(frame: int) -> None:
        await asyncio.sleep(0)
        raise asyncio.InvalidStateError("the stream is over")

    writer = FrameWriter(write)
    for frame in range(3):
        writer.push(frame)
    await asyncio.wait_for(writer.flushed(), WAIT_S)
    assert writer.unsent == 0


async def test_both_ends_of_a_grpc_stream_are_written_in_order():
    async def echo(request_iterator: Any, context: Any) -> None:
        writer = FrameWriter(context.write)
        while (frame := await context.read()) is not grpc.aio.EOF:
            writer.push(frame)
        await writer.flushed()

    server = grpc.aio.server()
    handler = grpc.stream_stream_rpc_method_handler(echo)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("test.Echo", {"Echo": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.stream_stream(METHOD)()
            writer = FrameWriter(call.write)
            frames = [b"%d" % number * 1000 for number in range(NUM_FRAMES)]
            for frame in frames:
                writer.push(frame)
            echoed = [await asyncio.wait_for(call.read(), WAIT_S) for _ in frames]
            assert echoed == frames
            await call.done_writing()
            assert await asyncio.wait_for(call.read(), WAIT_S) is grpc.aio.EOF
    finally:
        await server.stop(None)
