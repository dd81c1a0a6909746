"""How is a database asked without holding up the event loop?

One thread has the connection. What is asked waits in a queue of bounded length and time, so that a
slow disk or server costs answers their being kept, never their being given.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from gateway.store.response_store import StoreError

log = logging.getLogger(__name__)

Result = TypeVar("Result")


class Counts:
    """What is reported of a store; here nobody listens."""

    def took(self, operation: str, seconds: float) -> None:
        """An operation came back, waiting included."""

    def failed(self, reason: str) -> None:
        """One did not: see StoreError."""

    def removed(self, reason: str, count: int) -> None:
        """Entries and items that were deleted or have expired; threads that must make room."""


class DatabaseThread:
    """For one event loop."""

    def __init__(self, where: str, counts: Counts, *, max_waiting: int, timeout_s: float):
        """`where`: the store, for an operator."""
        self._where = where
        self._counts = counts
        self._max_waiting = max_waiting
        self._timeout_s = timeout_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="response-store")
        self._waiting = 0
        self._is_closed = False

    async def ask(self, operation: str, work: Callable[[], Result]) -> Result:
        """What `work` returns or raises. Raises StoreError when too much waits.

        Work that was begun, or waits, is done even if the caller has gone.
        """
        started_s = time.perf_counter()
        try:
            return await self._ask(work)
        except StoreError as error:
            self._counts.failed(error.reason)
            log.warning("%s: %s failed: %s (%s)", self._where, operation, error.reason, error)
            raise
        finally:
            self._counts.took(operation, time.perf_counter() - started_s)

    async def _ask(self, work: Callable[[], Result]) -> Result:
        if self._is_closed:
            raise StoreError("unavailable", "it is closed")
        if self._waiting >= self._max_waiting:
            raise StoreError("busy", f"{self._waiting} operations wait for it already")
        self._waiting += 1
        future = asyncio.get_running_loop().run_in_executor(self._thread, work)
        future.add_done_callback(self._done)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await asyncio.shield(future)
        except TimeoutError:
            raise StoreError("busy", f"no answer within {self._timeout_s:g} s") from None

    def _done(self, future: "asyncio.Future[Result]") -> None:
        self._waiting -= 1
        if not future.cancelled():
            future.exception()  # so that asyncio does not miss it where the caller has gone

    async def close(self, work: Callable[[], None]) -> None:
        """Do this last; once closed, nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        await asyncio.wrap_future(self._thread.submit(work))
        self._thread.shutdown(wait=False)
