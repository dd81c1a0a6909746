"""How does a plain call run asyncio code, even if a loop is already running (as in a notebook)?"""

import asyncio
import concurrent.futures
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from typing import Any, TypeVar

from expertmesh.offline.merge import cancel_all

Result = TypeVar("Result")

_CLEAN_UP_S = 10.0


class LoopThread:
    """An event loop on its own thread; calls block the caller's thread, not the loop."""

    def __init__(self, name: str):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()
        # Used only on the loop: tasks that callers wait for, and generators they iterate.
        self._running: set[asyncio.Task[Any]] = set()
        self._iterated: set[AsyncGenerator[Any, None]] = set()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive() and not self._loop.is_closed()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run `work` and return its result; an interrupt cancels it and waits for its clean-up."""
        done, cancel = self._begin(work)
        try:
            return done.result()
        except BaseException:  # KeyboardInterrupt too: `work` must not go on
            if not done.done():
                cancel()
                concurrent.futures.wait([done], _CLEAN_UP_S)
            raise

    async def wait_for(self, work: Coroutine[Any, Any, Result]) -> Result:
        """The same for a caller on another loop, which is not blocked. RuntimeError: closed."""
        done, cancel = self._begin(work)
        waiter = asyncio.wrap_future(done)
        try:
            return await asyncio.shield(waiter)
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if waiter.done() and not (caller is not None and caller.cancelling()):
                raise RuntimeError("closed") from None
            cancel()
            await asyncio.wait([waiter], timeout=_CLEAN_UP_S)
            raise

    def _begin(
        self, work: Coroutine[Any, Any, Result]
    ) -> tuple["concurrent.futures.Future[Result]", Callable[[], Any]]:
        """Start it on the loop: its result, and how to cancel it."""
        if not self.alive:
            work.close()
            raise RuntimeError("closed")
        done: concurrent.futures.Future[Result] = concurrent.futures.Future()
        started: list[asyncio.Task[Result]] = []

        def start() -> None:
            task = self._loop.create_task(work)
            self._running.add(task)
            task.add_done_callback(self._running.discard)
            task.add_done_callback(lambda _: _pass_on(task, done))
            started.append(task)

        self._loop.call_soon_threadsafe(start)
        return done, lambda: self._loop.call_soon_threadsafe(lambda: started[0].cancel())

    def iterate(self, items: AsyncGenerator[Result, None]) -> Iterator[Result]:
        """Yield the items; leaving early closes the generator."""
        end = object()
        self._iterated.add(items)
        try:
            while True:
                item = self.run(_next(items, end))
                if item is end:
                    return
                yield item
        finally:
            self._iterated.discard(items)
            if self.alive:
                self.run(items.aclose())

    async def iterate_async(
        self, items: AsyncGenerator[Result, None]
    ) -> AsyncGenerator[Result, None]:
        """The same for a caller on another loop."""
        end = object()
        self._iterated.add(items)
        try:
            while True:
                item = await self.wait_for(_next(items, end))
                if item is end:
                    return
                yield item
        finally:
            self._iterated.discard(items)
            if self.alive:
                await self.wait_for(items.aclose())

    def cancel_all(self) -> None:
        """Cancel every running call and close every unfinished iteration."""

        async def cancel() -> None:
            await cancel_all(self._running - {asyncio.current_task()})
            for items in list(self._iterated):
                await items.aclose()

        self.run(cancel())

    def close(self) -> None:
        """Cancel what is running, stop the loop, end the thread."""
        if not self.alive:
            return
        self.cancel_all()
        self.run(_end_everything())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CLEAN_UP_S)
        if not self._thread.is_alive():
            self._loop.close()


def _pass_on(task: asyncio.Task[Result], done: concurrent.futures.Future[Result]) -> None:
    if task.cancelled():
        done.set_exception(concurrent.futures.CancelledError())
        return
    error = task.exception()
    if error is not None:
        done.set_exception(error)
    else:
        done.set_result(task.result())


async def _next(items: AsyncGenerator[Any, None], end: object) -> Any:
    return await anext(items, end)


async def _end_everything() -> None:
    loop = asyncio.get_running_loop()
    await cancel_all(asyncio.all_tasks() - {asyncio.current_task()})
    await loop.shutdown_asyncgens()
    await loop.shutdown_default_executor()
