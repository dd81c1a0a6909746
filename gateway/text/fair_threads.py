"""Where is work done that is too long for the event loop, and whose is done next?

Clients take turns at a few threads (`rpc/fair_shares.py`), so that one's long prompts delay no
other's.
"""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from gateway.errors import overloaded
from rpc.errors import Overloaded
from rpc.fair_shares import FairSlots

Result = TypeVar("Result")


class FairThreads:
    """For one event loop."""

    def __init__(self, num_threads: int, *, max_waiting: int):
        self._slots = FairSlots(num_threads, max_waiting=max_waiting, what="long requests")
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix="long-request")

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def run(
        self, client: str, work: Callable[[], Result], *, timeout_s: float | None = None
    ) -> Result:
        """What `work` returns or raises. An abandoned thread keeps its slot until it ends.

        Raises:
            RequestError: too much is waiting, or its turn did not come in `timeout_s`.
            TimeoutError: the work itself took longer than what was left of `timeout_s`.
        """
        loop = asyncio.get_running_loop()
        ends_s = None if timeout_s is None else loop.time() + timeout_s
        try:
            async with asyncio.timeout_at(ends_s):
                await self._slots.acquire(client)
        except Overloaded as error:
            raise overloaded(str(error)) from None
        except TimeoutError:
            raise overloaded("other long requests of this client took too long") from None
        future = self._threads.submit(work)

        def give_back(_: Future[Result]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has closed: no request waits
                loop.call_soon_threadsafe(self._slots.release, client)

        future.add_done_callback(give_back)
        async with asyncio.timeout_at(ends_s):
            return await asyncio.wrap_future(future)
