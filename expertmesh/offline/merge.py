"""How are many streams run at once and read as one?"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Collection, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

Item = TypeVar("Item")

_QUEUED_ITEMS = 256


async def cancel_all(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel the tasks and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(frozen=True)
class _Ended:
    error: Exception | None


async def merge(
    sources: Iterable[AsyncGenerator[Item, None]], *, at_once: int
) -> AsyncGenerator[Item, None]:
    """Yield the items of all sources as they arrive, with at most `at_once` sources open.

    Sources are opened in order. The first error, or closing this generator, ends all: open sources
    are closed before it returns.
    """
    waiting = list(sources)[::-1]
    # Bounded, so that a slow reader slows down the sources instead of filling memory.
    queue: asyncio.Queue[Item | _Ended] = asyncio.Queue(_QUEUED_ITEMS)

    async def work() -> None:
        try:
            while waiting:
                async with contextlib.aclosing(waiting.pop()) as source:
                    async for item in source:
                        await queue.put(item)
        except Exception as error:  # handed to the reader, who raises it
            await queue.put(_Ended(error))
        else:
            await queue.put(_Ended(None))

    workers = [asyncio.create_task(work()) for _ in range(min(at_once, len(waiting)))]
    running = len(workers)
    try:
        while running:
            item = await queue.get()
            if not isinstance(item, _Ended):
                yield item
            elif item.error is not None:
                raise item.error
            else:
                running -= 1
    finally:
        await cancel_all(workers)
