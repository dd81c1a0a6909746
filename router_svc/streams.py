"""How do frames wait for a slow reader, and how can other code end a stream?"""

import asyncio
from collections.abc import Coroutine
from typing import Any, Generic, TypeVar

import grpc

FIRST_FRAME_TIMEOUT_S = 10.0
LAST_WRITE_S = 0.5
"""How long a frame that is being written may delay the end of its stream; a caller that reads
takes it sooner."""

Item = TypeVar("Item")


class Newest(Generic[Item]):
    """Holds one item: a reader that falls behind gets only the newest."""

    def __init__(self) -> None:
        self._item: Item | None = None
        self._filled = asyncio.Event()

    def put(self, item: Item) -> None:
        self._item = item
        self._filled.set()

    async def take(self) -> Item:
        """Wait for an item and remove it."""
        await self._filled.wait()
        self._filled.clear()
        item, self._item = self._item, None
        assert item is not None
        return item


class StreamEnd:
    """Lets other code end a stream's handler with an error."""

    def __init__(self) -> None:
        self._future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def end(self, error: Exception) -> None:
        """End the stream with `error`; the first error counts."""
        if not self._future.done():
            self._future.set_exception(error)

    async def wait(self) -> None:
        """Wait for an error and raise it."""
        await asyncio.shield(self._future)

    def close(self) -> None:
        """The handler has ended: later errors are dropped."""
        if not self._future.done():
            self._future.cancel()
        elif not self._future.cancelled():
            self._future.exception()  # marks it retrieved, or asyncio would log it


async def write_whole(context: Any, frame: Any) -> None:
    """Write a frame. When cancelled, still wait for the write: the stream's status cannot be sent
    before it is done."""
    writing = asyncio.ensure_future(context.write(frame))
    try:
        await asyncio.shield(writing)
    except asyncio.CancelledError:
        await asyncio.wait({writing}, timeout=LAST_WRITE_S)
        writing.cancel()
        raise


async def until_first(*parts: Coroutine[Any, Any, None]) -> None:
    """Run the parts concurrently until one returns or raises, then cancel the others."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


async def first_frame(context: Any, timeout_s: float = FIRST_FRAME_TIMEOUT_S) -> Any:
    """A stream's first frame. Raises ValueError when none comes."""
    try:
        async with asyncio.timeout(timeout_s):
            frame = await context.read()
    except TimeoutError:
        raise ValueError(f"no frame within {timeout_s:g} s") from None
    if frame is grpc.aio.EOF:
        raise ValueError("the stream ended before its first frame")
    return frame
