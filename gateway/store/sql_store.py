"""How is a database kept within its bounds while it is used as the store?"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from gateway.store import entry_rows, item_rows
from gateway.store.database import Database, Transaction, prepare_tables
from gateway.store.database_thread import Counts, DatabaseThread
from gateway.store.forgetting import expire_oldest, remove_some
from gateway.store.response_store import LEASE_S, Entry, Item, Kind, Status, StoreError
from gateway.store.thread_rows import Bounds, Moment, column

log = logging.getLogger(__name__)

Result = TypeVar("Result")
Work = Callable[[Transaction, Moment], Result]

_FULL_AT, _FREE_TO = 0.95, 0.90
"""Shares of the most bytes: beyond the first one room is made, down to the second."""
_LOOK_EACH = 0.01
"""The size is looked at whenever this share of it has been written."""


@dataclass(frozen=True, kw_only=True)
class StoreLimits:
    """How much is kept, for how long, and how much is read at once."""

    max_bytes: int
    ttl_s: float
    """How long a thread lives after its last continuation."""
    chain: Bounds
    timeout_s: float = 10.0
    max_waiting: int = 256
    sweep_s: float = 60.0
    """Between two removals of what has expired."""


class SqlStore:
    """The `ResponseStore` in a database. `open`, then `close`."""

    def __init__(
        self,
        database: Database,
        limits: StoreLimits,
        *,
        where: str,
        counts: Counts | None = None,
        clock: Callable[[], float] = time.time,
    ):
        """`where`: the store, for an operator."""
        self._database = database
        self._limits = limits
        self._where = where
        self._counts = counts or Counts()
        self._clock = clock
        self._thread = DatabaseThread(
            where, self._counts, max_waiting=limits.max_waiting, timeout_s=limits.timeout_s
        )
        self._is_prepared = False
        self._unseen_bytes = 0
        """Written since the size was last looked at."""
        self._is_full = asyncio.Event()
        self._sweeping: asyncio.Task[None] | None = None
        self.used_bytes = 0
        """When the size was last looked at."""

    async def open(self) -> None:
        """Raises ValueError for what an operator must mend; a server that is away may come back."""
        try:
            await self._thread.ask("open", self._open)
        except StoreError:
            log.warning("%s: answers are not kept until it is there", self._where)
        self._sweeping = asyncio.create_task(self._sweep_regularly())

    async def close(self) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.gather(self._sweeping, return_exceptions=True)
        await self._thread.close(self._database.close)

    async def put(
        self,
        tenant: str,
        entry: Entry,
        items: Sequence[Item] = (),
        *,
        answered: Collection[str] = (),
    ) -> None:
        until_s = self._clock() + LEASE_S if entry.status is Status.RUNNING else None
        await self._grow(
            "put",
            entry_rows.size_of(entry, items),
            lambda run, at: entry_rows.put(
                run, at, column(tenant), entry, items, answered, until_s
            ),
        )

    async def get(self, tenant: str, kind: Kind, id: str) -> Entry:
        return await self._do(
            "get", lambda run, at: entry_rows.get(run, at, column(tenant), kind, id)
        )

    async def chain(self, tenant: str, id: str) -> list[Entry]:
        most = self._limits.chain
        return await self._do(
            "chain", lambda run, at: entry_rows.chain(run, at, column(tenant), id, most)
        )

    async def lists_with(self, tenant: str, item_ids: Collection[str]) -> list[bytes]:
        most = self._limits.chain
        return await self._do(
            "lists_with",
            lambda run, at: item_rows.lists_with(run, at, column(tenant), item_ids, most),
        )

    async def end(
        self,
        tenant: str,
        id: str,
        *,
        document: bytes,
        output: bytes,
        items: Sequence[Item] = (),
        answered: Collection[str] = (),
    ) -> bool:
        return await self._grow(
            "end",
            len(document) + len(output) + item_rows.items_size(items),
            lambda run, at: entry_rows.end(
                run, at, column(tenant), id, document, output, items, answered
            ),
        )

    async def renew(self, ids: Iterable[str]) -> set[str]:
        running = sorted(ids)
        return await self._do(
            "renew", lambda run, at: entry_rows.renew(run, at, running, at.now_s + LEASE_S)
        )

    async def replace(self, tenant: str, kind: Kind, id: str, document: bytes) -> None:
        await self._grow(
            "replace",
            len(document),
            lambda run, at: entry_rows.replace(run, at, column(tenant), kind, id, document),
        )

    async def delete(self, tenant: str, kind: Kind, id: str) -> None:
        await self._do(
            "delete", lambda run, at: entry_rows.delete(run, at, column(tenant), kind, id)
        )
        self._counts.removed("deleted", 1)
        await self._thread.ask("compact", self._database.compact)

    async def add_items(self, tenant: str, conversation_id: str, items: Sequence[Item]) -> None:
        await self._grow(
            "add_items",
            item_rows.items_size(items),
            lambda run, at: item_rows.add_items(run, at, column(tenant), conversation_id, items),
        )

    async def items(self, tenant: str, conversation_id: str) -> list[Item]:
        most = self._limits.chain
        return await self._do(
            "items",
            lambda run, at: item_rows.items_of(run, at, column(tenant), conversation_id, most),
        )

    async def delete_item(self, tenant: str, conversation_id: str, item_id: str) -> None:
        await self._do(
            "delete_item",
            lambda run, at: item_rows.delete_item(
                run, at, column(tenant), conversation_id, item_id
            ),
        )
        self._counts.removed("deleted", 1)
        await self._thread.ask("compact", self._database.compact)

    async def sweep(self) -> None:
        """Remove what has expired, and make room, in steps between which the store answers."""
        await self._remove_expired()
        excess_bytes = await self._thread.ask("size", self._excess_bytes)
        if excess_bytes > 0:
            expired = await self._do(
                "expire", lambda run, at: expire_oldest(run, excess_bytes, at.dead_before_s)
            )
            self._counts.removed("room", expired)
            await self._remove_expired()
        await self._thread.ask("compact", self._database.compact)
        await self._thread.ask("size", self._excess_bytes)

    async def _remove_expired(self) -> None:
        while removed := await self._do(
            "sweep", lambda run, at: remove_some(run, at.dead_before_s)
        ):
            self._counts.removed("expired", removed)

    async def _sweep_regularly(self) -> None:
        while True:
            self._is_full.clear()
            with contextlib.suppress(StoreError):  # counted and logged; it is tried again
                await self.sweep()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._limits.sweep_s):
                    await self._is_full.wait()

    async def _do(self, operation: str, work: Work[Result]) -> Result:
        return await self._thread.ask(operation, lambda: self._transact(work))

    async def _grow(self, operation: str, size_bytes: int, work: Work[Result]) -> Result:
        """The same for work that writes so much."""
        if size_bytes > self._limits.max_bytes // 2:
            self._counts.failed("full")
            raise StoreError("full", f"{size_bytes} bytes are more than half of the store")
        result = await self._thread.ask(operation, lambda: self._grown(size_bytes, work))
        if self.used_bytes > _FULL_AT * self._limits.max_bytes:
            self._is_full.set()
        return result

    # What follows runs on the thread.

    def _open(self) -> None:
        self._database.open()
        self._transact(lambda run, at: None)

    def _transact(self, work: Work[Result]) -> Result:
        if not self._is_prepared:
            prepare_tables(self._database, self._where)
            self._is_prepared = True
        try:
            return self._once(work)
        except StoreError as error:
            if error.reason != "unavailable":
                raise
            return self._once(work)  # on a new connection, where the old one was lost

    def _once(self, work: Work[Result]) -> Result:
        now_s = self._clock()
        at = Moment(now_s=now_s, dead_before_s=now_s - self._limits.ttl_s)
        with self._database.transaction() as run:
            return work(run, at)

    def _grown(self, size_bytes: int, work: Work[Result]) -> Result:
        try:
            result = self._transact(work)
        except StoreError as error:
            if error.reason != "full" or not self._make_room(size_bytes):
                raise
            result = self._transact(work)
        self._unseen_bytes += size_bytes
        if self._unseen_bytes > _LOOK_EACH * self._limits.max_bytes:
            self._excess_bytes()
        return result

    def _make_room(self, size_bytes: int) -> bool:
        """At once, if it is our own limit that was reached and not the disk's."""
        if self._excess_bytes() <= 0:
            return False
        excess_bytes = 2 * size_bytes + int((1 - _FREE_TO) * self._limits.max_bytes)
        expired = self._transact(lambda run, at: expire_oldest(run, excess_bytes, at.dead_before_s))
        self._counts.removed("room", expired)
        while self._transact(lambda run, at: remove_some(run, at.dead_before_s)):
            pass
        return True

    def _excess_bytes(self) -> int:
        """How much must go; 0 or less: nothing."""
        self.used_bytes = self._database.used_bytes()
        self._unseen_bytes = 0
        if self.used_bytes <= _FULL_AT * self._limits.max_bytes:
            return 0
        return self.used_bytes - int(_FREE_TO * self._limits.max_bytes)
