"""Messages to a browser and back."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, BinaryIO

import pytest

from expertmesh.agent.web.browser.devtools import DevTools, DevToolsError


class OtherEnd:
    """The browser's ends of the pipes."""

    def __init__(self, reads: BinaryIO, writes: BinaryIO):
        self.reads, self.writes = reads, writes

    async def asked(self) -> dict[str, Any]:
        data = b""
        while not data.endswith(b"\0"):
            data += await asyncio.to_thread(os.read, self.reads.fileno(), 1)
        return json.loads(data[:-1])

    def say(self, data: bytes) -> None:
        self.writes.write(data)


@asynccontextmanager
async def connected(events: list[Any]) -> AsyncIterator[tuple[DevTools, OtherEnd]]:
    commands_out, commands_in = os.pipe()
    answers_out, answers_in = os.pipe()
    tools = DevTools(lambda method, given: events.append((method, given)))
    with (
        os.fdopen(commands_out, "rb", buffering=0) as reads,
        os.fdopen(answers_in, "wb", buffering=0) as writes,
    ):
        await tools.open(os.fdopen(answers_out, "rb"), os.fdopen(commands_in, "wb"))
        try:
            yield tools, OtherEnd(reads, writes)
        finally:
            await tools.close()


async def test_answers_find_their_calls_in_any_order() -> None:
    events: list[Any] = []
    async with connected(events) as (tools, other):
        first = asyncio.create_task(tools.call("A.a", x=1))
        second = asyncio.create_task(tools.call("B.b", "session"))
        asked = [await other.asked(), await other.asked()]
        assert asked[0] == {"id": 1, "method": "A.a", "params": {"x": 1}}
        assert asked[1] == {"id": 2, "method": "B.b", "params": {}, "sessionId": "session"}
        other.say(b'{"id": 2, "result": {"two": 2}}\0{"method": "E.e", "params": {"y": 1}}\0{"id"')
        assert await second == {"two": 2}
        other.say(b': 1, "error": {"code": 1, "message": "no such thing"}}\0{"id": 99}\0')
        with pytest.raises(DevToolsError, match="no such thing"):
            await first
    assert events == [("E.e", {"y": 1})]


@pytest.mark.parametrize("last", [b"", b"this is no JSON\0", b'"text"\0', b"half of a"])
async def test_a_browser_that_goes_ends_every_call(last: bytes) -> None:
    async with connected([]) as (tools, other):
        waiting = asyncio.create_task(tools.call("A.a"))
        await other.asked()
        other.say(last)
        other.writes.close()
        with pytest.raises(DevToolsError, match="has ended"):
            await waiting
        with pytest.raises(DevToolsError, match="has ended"):
            await tools.call("A.a")


async def test_before_it_is_open_there_is_no_browser() -> None:
    with pytest.raises(DevToolsError, match="has ended"):
        await DevTools(lambda method, given: None).call("A.a")
