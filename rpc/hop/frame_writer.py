"""How do frames leave on a stream: in order, one write at a time, the first one at once?

A writer task would cost every hop a turn of the event loop before its frame starts. Instead, the
caller runs the first step of the write itself, as asyncio's Task would, and the loop continues it
only when gRPC has to wait.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

import grpc

log = logging.getLogger(__name__)

FLUSH_PAUSE_S = 0.005
"""How often `flushed` checks: it waits for peers that do not read, where nothing is urgent."""

Write = Callable[[Any], Coroutine[Any, Any, None]]

_ENDED = (
    grpc.aio.AioRpcError,
    grpc.aio.BaseError,
    asyncio.InvalidStateError,
    asyncio.CancelledError,
)
"""What a write raises on a stream that is over: clients and servers raise different ones."""


class FrameWriter:
    """For the event loop's thread. A failed write closes the writer: the stream is ending, and the
    code that reads from it gets the reason."""

    def __init__(self, write: Write):
        self._write = write
        self._waiting: deque[Any] = deque()
        self._current: Coroutine[Any, Any, None] | None = None
        self._closed = False

    @property
    def unsent(self) -> int:
        """Frames pushed and not yet written."""
        return len(self._waiting) + (self._current is not None)

    async def flushed(self) -> None:
        """Wait until everything pushed, also during the wait, has been written or dropped."""
        while self.unsent:
            await asyncio.sleep(FLUSH_PAUSE_S)

    def push(self, frame: Any) -> None:
        """Write `frame` after those pushed before it; a closed writer drops it."""
        if self._closed:
            return
        if self._current is not None:
            self._waiting.append(frame)
            return
        self._current = self._write(frame)
        self._step()

    def close(self) -> None:
        """Drop what has not been written yet."""
        self._closed = True
        self._waiting.clear()
        if self._current is not None:
            self._current.close()
            self._current = None

    def _step(self) -> None:
        """Run the current write until it waits. What it may yield is asyncio's protocol between a
        coroutine and its task: a future, or None for another turn of the loop."""
        assert self._current is not None
        try:
            awaited = self._current.send(None)
        except StopIteration:
            self._current = None
        except _ENDED as error:
            log.debug("the stream is closing, its writer stops: %s", error)
            self._current = None
            self.close()
        else:
            if awaited is None:
                asyncio.get_running_loop().call_soon(self._resume, None)
                return
            awaited._asyncio_future_blocking = False  # says that its task has taken the future
            awaited.add_done_callback(self._resume)

    def _resume(self, _: "asyncio.Future[Any] | None") -> None:
        if self._current is not None:
            self._step()
        while self._current is None and self._waiting:
            self.push(self._waiting.popleft())
