"""How do frames leave on a stream: in order, one write at a time, the first one at once?

A writer task would cost every hop a turn of the event loop before its frame starts. Here the
caller's own stack runs the first step of the write; only what gRPC makes wait is continued by
the loop.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

import grpc.aio

log = logging.getLogger(__name__)

FLUSH_PAUSE_S = 0.005
"""How often `flushed` looks again: for peers that do not read, where nothing is urgent."""

Write = Callable[[Any], Coroutine[Any, Any, None]]

_ENDED = (
    grpc.aio.AioRpcError, grpc.aio.BaseError, asyncio.InvalidStateError, asyncio.CancelledError,
)  # fmt: skip
"""What a write raises on a stream that is over; gRPC's two ends raise different ones."""


class FrameWriter:
    """Use from the event loop's thread. A failed write ends the writer: the stream is dying, and
    its reader learns why."""

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
        """Until everything pushed so far, and since, has been written or dropped."""
        while self.unsent:
            await asyncio.sleep(FLUSH_PAUSE_S)

    def push(self, frame: Any) -> None:
        """Write `frame` after those pushed before; dropped when the writer is closed."""
        if self._closed:
            return
        if self._current is not None:
            self._waiting.append(frame)
            return
        self._current = self._write(frame)
        self._step()

    def close(self) -> None:
        """Forget what was not written yet."""
        self._closed = True
        self._waiting.clear()
        if self._current is not None:
            self._current.close()
            self._current = None

    def _step(self) -> None:
        """Run the current write up to where it waits, as a task would."""
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
            awaited._asyncio_future_blocking = False  # the protocol between a future and its task
            awaited.add_done_callback(self._resume)

    def _resume(self, _: "asyncio.Future[Any]") -> None:
        if self._current is not None:
            self._step()
        while self._current is None and self._waiting:
            self.push(self._waiting.popleft())
