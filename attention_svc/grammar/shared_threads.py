"""On which threads is long work done, and whose is next?

Clients take turns at a few threads; none gets all of them.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from rpc.fair_shares import FairTurns

log = logging.getLogger(__name__)

Result = TypeVar("Result")
Work = Callable[[], None]


class SharedThreads:
    """Work may be submitted from any thread."""

    def __init__(self, num_threads: int, *, name: str):
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix=name)
        self._turns = FairTurns[Work](num_threads)
        self._lock = threading.Lock()
        self._closed = False

    def submit(self, client: str, work: Work) -> None:
        """Run it in the client's turn. It must not raise."""
        with self._lock:
            self._turns.put(client, work)
            taken = self._turns.take()
        if taken is not None:  # else `_serve` begins it when other work ends
            self._threads.submit(self._serve, *taken)

    async def run(self, client: str, work: Callable[[], Result]) -> Result:
        """Its result, run in the client's turn; if cancelled before its turn, it does not run."""
        future: Future[Result] = Future()

        def attempt() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(work())
            except BaseException as error:  # raised where the caller waits
                future.set_exception(error)

        self.submit(client, attempt)
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Work that has not begun is dropped."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _serve(self, client: str, work: Work) -> None:
        """Run this work, and then other work as long as there is some."""
        while not self._closed:
            try:
                work()
            except Exception:  # other work does not depend on it
                log.exception("work on a shared thread failed")
            with self._lock:
                self._turns.done(client)
                taken = self._turns.take()
            if taken is None:
                return
            client, work = taken
