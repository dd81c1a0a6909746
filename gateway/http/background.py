"""Which answers are made while no client waits for them?"""

import asyncio
import logging
from collections import Counter
from collections.abc import Coroutine
from typing import Any

from gateway.errors import overloaded
from gateway.http.event_log import EventLogs
from gateway.limits import Limits
from gateway.store.response_store import RENEW_S, ResponseStore, StoreError

log = logging.getLogger(__name__)

_END_S = 5.0
"""How long they have to keep how they ended, when the gateway stops."""


class Background:
    """Their tasks, for one event loop; the store learns now and then that they go on."""

    def __init__(self, store: ResponseStore | None, limits: Limits):
        self._store = store
        self._per_key = limits.background_per_key
        self.logs = EventLogs(
            log_bytes=limits.background_event_bytes, ended_bytes=limits.ended_event_bytes
        )
        """Of those that are streamed."""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._of_key: Counter[str] = Counter()
        self._renewing: asyncio.Task[None] | None = None

    def check_room(self, key_id: str) -> None:
        """Raises RequestError when a key has as many as it may."""
        if self._of_key[key_id] >= self._per_key:
            raise overloaded(
                f"{self._per_key} responses of this client are made in the background already, "
                "the most allowed"
            )

    def start(self, id: str, key_id: str, work: Coroutine[Any, Any, None]) -> None:
        """Do it; `id` is the entry that the work will end."""
        task = asyncio.create_task(work)
        self._tasks[id] = task
        self._of_key[key_id] += 1

        def ended(_: asyncio.Task[None]) -> None:
            del self._tasks[id]
            self.logs.end(id)
            self._of_key[key_id] -= 1

        task.add_done_callback(ended)
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.create_task(self._renew())

    def cancel(self, id: str) -> None:
        """If it is made here; otherwise the gateway that makes it finds out by itself."""
        if id in self._tasks:
            self._tasks[id].cancel()

    async def stop(self) -> None:
        """Their generations have been ended: wait until that is kept."""
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=_END_S)
        left = [*self._tasks.values(), *([self._renewing] if self._renewing else [])]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _renew(self) -> None:
        """Until none is left. Those that were ended elsewhere are cancelled."""
        assert self._store is not None
        while self._tasks:
            await asyncio.sleep(RENEW_S)
            asked = set(self._tasks)
            try:
                running = await self._store.renew(asked)
            except StoreError:  # counted and logged; there are two more tries within a lease
                continue
            for id in asked - running:
                self.cancel(id)
