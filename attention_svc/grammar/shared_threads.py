"""Where is work done that may take long, and whose is done next?

Clients take turns at a few threads; none has all of them.
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
    """Any thread may submit."""

    def __init__(self, num_threads: int, *, name: str):
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix=name)
        self._turns = FairTurns[Work](num_threads)
        self._lock = threading.Lock()
        self._closed = False

    def submit(self, client: str, work: Work) -> None:
        """Do it in the client's turn. It must not raise."""
        with self._lock:
            self._turns.put(client, work)
            taken = self._turns.take()
        if taken is not None:  # else it is begun by who ends before it
            self._threads.submit(self._serve, *taken)

    async def run(self, client: str, work: Callable[[], Result]) -> Result:
        """What `work` returns or raises, done in the client's turn; not done at all when cancelled before."""
        future: Future[Result] = Future()

        def attempt() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(work())
            # Whatever it is, it is raised where the caller waits.
            except BaseException as error:
                future.set_exception(error)

        self.submit(client, attempt)
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """What has not begun never does."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _serve(self, client: str, work: Work) -> None:
        """This, and then whatever may begin."""
        while not self._closed:
            try:
                work()
            # The others' work does not depend on it.
            except Exception:
                log.exception("work on a shared thread failed")
            with self._lock:
                self._turns.done(client)
                taken = self._turns.take()
            if taken is None:
                return
            client, work = taken
