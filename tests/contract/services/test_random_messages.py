"""Random messages to every gRPC method: the status says whether the caller was at fault."""

import asyncio
import logging
import random
from typing import Any

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass

from rpc.channel import open_channel
from tests.support.guarded_services import METHOD_IDS, METHODS, serving

WAIT_S = 20.0
COUNT = 40
INTEGERS = (0, 1, 2, 5, 255, 2**31 - 1, 2**32 - 1, 2**63 - 1)
FLOATS = (0.0, -1.0, 0.5, 1e30, float("inf"), float("nan"))
TEXTS = ("", "a", "a\nb\0c", "\ud7ff\U0010ffff", "x" * 5000, "127.0.0.1:1", "../..", "{}")
CALLER_WAS_TOLD_WHILE_WRITING = "Internal error from Core"
"""gRPC's client reports this of itself and drops the status; the service's log is still checked."""
OUR_FAULT = (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL)


def fill(message: Any, rng: random.Random, depth: int = 0) -> Any:
    """Set some of its fields to values at the edges of their types."""
    for field in message.DESCRIPTOR.fields:
        if rng.random() < 0.4 or depth > 4:
            continue
        if field.type == field.TYPE_MESSAGE:
            if field.message_type.GetOptions().map_entry:
                continue
            if field.is_repeated:
                for _ in range(rng.randrange(3)):
                    fill(getattr(message, field.name).add(), rng, depth + 1)
            else:
                getattr(message, field.name).SetInParent()
                fill(getattr(message, field.name), rng, depth + 1)
        elif field.is_repeated:
            getattr(message, field.name).extend(value(field, rng) for _ in range(rng.randrange(4)))
        else:
            setattr(message, field.name, value(field, rng))
    return message


def value(field: Any, rng: random.Random) -> Any:
    if field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return rng.choice(FLOATS)
    if field.type == field.TYPE_BYTES:
        return rng.randbytes(rng.choice((0, 1, 4, 64)))
    if field.type == field.TYPE_STRING:
        return rng.choice(TEXTS)
    if field.cpp_type == field.CPPTYPE_BOOL:
        return rng.random() < 0.5
    if field.cpp_type == field.CPPTYPE_ENUM:
        return rng.choice((0, 1, 2, 77))
    bits = 31 if field.cpp_type == field.CPPTYPE_INT32 else 32
    if field.cpp_type == field.CPPTYPE_INT64:
        bits = 63
    elif field.cpp_type == field.CPPTYPE_UINT64:
        bits = 64
    return rng.choice([number for number in INTEGERS if number < 2**bits])


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The same with some bytes replaced, removed or put in."""
    changed = bytearray(data)
    for _ in range(rng.randrange(4)):
        at = rng.randrange(len(changed) + 1)
        changed[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
    return bytes(changed)


async def status_of(
    channel: grpc.aio.Channel, path: str, frames: list[bytes]
) -> tuple[grpc.StatusCode, str]:
    """How a call with these frames ends; what still runs after a moment is left."""
    call = channel.stream_stream(path)(timeout=WAIT_S)
    try:
        for frame in frames:
            await call.write(frame)
        await call.done_writing()
        async with asyncio.timeout(0.3):
            while await call.read() is not grpc.aio.EOF:
                pass
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        pass
    except TimeoutError:
        call.cancel()
    return await call.code(), await call.details() or ""


@pytest.mark.parametrize("role, path, method", METHODS, ids=METHOD_IDS)
async def test_random_messages_are_never_our_fault(
    role: str, path: str, method: Any, caplog: pytest.LogCaptureFixture
) -> None:
    rng = random.Random(path)
    kind = GetMessageClass(method.input_type)
    caplog.set_level(logging.ERROR)
    async with (
        serving(role) as address,
        open_channel(address, tls=None, server_role=role) as channel,
    ):
        for _ in range(COUNT):
            frames = [
                mutated(fill(kind(), rng).SerializeToString(), rng)
                for _ in range(3 if method.client_streaming else 1)
            ]
            code, details = await status_of(channel, path, frames)
            if details != CALLER_WAS_TOLD_WHILE_WRITING:
                assert code not in OUR_FAULT, (details, frames)
        assert [record.getMessage() for record in caplog.records] == []
