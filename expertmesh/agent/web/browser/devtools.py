"""How is a browser told what to do? By DevTools messages over two pipes of its own.

JSON with a zero byte after each, as `--remote-debugging-pipe` has it: no port, so that neither a
page nor another program can speak to the browser.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any, BinaryIO

MAX_MESSAGE_BYTES = 32 << 20

OnEvent = Callable[[str, dict[str, Any]], None]
"""(method, parameters) of what happens in the browser."""


class DevToolsError(Exception):
    """The browser refuses a command, or is gone."""


class DevTools:
    """The pipes to one browser; `open` them within its event loop, and `close` them."""

    def __init__(self, on_event: OnEvent):
        self._on_event = on_event
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._number = 0
        self._reading: asyncio.Task[None] | None = None
        self._transports: list[asyncio.BaseTransport] = []
        self._write: Callable[[bytes], None] = _closed

    async def open(self, from_browser: BinaryIO, to_browser: BinaryIO) -> None:
        """Takes the pipes over."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=MAX_MESSAGE_BYTES)
        incoming, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), from_browser
        )
        outgoing, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, to_browser)
        self._transports = [incoming, outgoing]
        self._write = outgoing.write
        self._reading = asyncio.create_task(self._read(reader))

    async def close(self) -> None:
        for transport in self._transports:
            transport.close()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def call(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """What the browser answers. Raises DevToolsError."""
        if self._reading is None or self._reading.done():
            raise DevToolsError("the browser has ended")
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        answer = asyncio.get_running_loop().create_future()
        self._waiting[self._number] = answer
        self._write(json.dumps(message).encode() + b"\0")
        return await answer

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                self._take(json.loads((await reader.readuntil(b"\0"))[:-1]))
        except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # it has ended, or says what no browser says: every caller is told below
        finally:
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(DevToolsError("the browser has ended"))
            self._waiting.clear()

    def _take(self, message: dict[str, Any]) -> None:
        if "id" not in message:
            self._on_event(message.get("method", ""), message.get("params", {}))
            return
        answer = self._waiting.pop(message["id"], None)
        if answer is None or answer.done():
            return
        if "error" in message:
            answer.set_exception(DevToolsError(str(message["error"].get("message"))))
        else:
            answer.set_result(message.get("result", {}))


def _closed(data: bytes) -> None:
    raise DevToolsError("the browser has ended")
