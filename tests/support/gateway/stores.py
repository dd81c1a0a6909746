"""Stores of responses for tests: with a clock of the test's, and what such a store must do."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from gateway.store.database import Database
from gateway.store.database_thread import Counts
from gateway.store.response_store import (
    LEASE_S,
    ChainTooLong,
    Entry,
    Item,
    Kind,
    Status,
    StoreError,
    UnknownEntry,
)
from gateway.store.sql_store import SqlStore, StoreLimits
from gateway.store.sqlite import SqliteDatabase
from gateway.store.thread_rows import Bounds

Result = TypeVar("Result")

TTL_S = 1000.0
CHAIN = Bounds(entries=4, bytes=200)
LONG_CHAIN = Bounds(entries=100, bytes=2**20)
MIB = 2**20
IN_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""A folder for many files: opening one, and removing from it, syncs it to its disk."""


class Clock:
    """Moved by the test."""

    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


class Noted(Counts):
    """What a store reported."""

    def __init__(self) -> None:
        self.failures: list[str] = []
        self.gone: dict[str, int] = {}

    def failed(self, reason: str) -> None:
        self.failures.append(reason)

    def removed(self, reason: str, count: int) -> None:
        self.gone[reason] = self.gone.get(reason, 0) + count


@dataclass
class Opened:
    """An open store, used from synchronous code."""

    runner: asyncio.Runner
    store: SqlStore
    clock: Clock
    noted: Noted

    def __call__(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self.runner.run(work)

    def close(self) -> None:
        self.runner.run(self.store.close())
        self.runner.close()


def open_store(
    database: Database, clock: Clock, *, max_bytes: int = 64 * MIB, chain: Bounds = CHAIN
) -> Opened:
    """It sweeps when it is asked to."""
    limits = StoreLimits(max_bytes=max_bytes, ttl_s=TTL_S, chain=chain, sweep_s=3600.0)
    noted, runner = Noted(), asyncio.Runner()
    store = SqlStore(database, limits, where="the store", counts=noted, clock=clock)
    try:
        runner.run(store.open())
    except BaseException:
        runner.run(store.close())
        runner.close()
        raise
    return Opened(runner, store, clock, noted)


def open_sqlite(
    path: Path,
    clock: Clock | None = None,
    *,
    max_bytes: int = 64 * MIB,
    chain: Bounds = LONG_CHAIN,
) -> Opened:
    database = SqliteDatabase(path, max_bytes=max_bytes)
    return open_store(database, clock or Clock(), max_bytes=max_bytes, chain=chain)


def response(id: str, **fields: Any) -> Entry:
    """A small answer."""
    fields = {"document": b'{"id":"%s"}' % id.encode(), "created_s": 1.0, **fields}
    return Entry(id=id, kind=Kind.RESPONSE, **fields)


def conversation(id: str) -> Entry:
    return Entry(id=id, kind=Kind.CONVERSATION, created_s=1.0, document=b"{}")


@dataclass
class _Kept:
    tenant: str
    entry: Entry
    thread: str
    until_s: float | None
    answered: Sequence[str]


@dataclass
class ModelStore:
    """What a store does, in dictionaries; without its bounds in bytes."""

    clock: Callable[[], float]
    kept: dict[str, _Kept] = field(default_factory=dict)
    used_s: dict[str, float] = field(default_factory=dict)
    items_of: dict[str, list[Item]] = field(default_factory=dict)

    def put(
        self, tenant: str, entry: Entry, items: Sequence[Item] = (), *, answered: Sequence[str] = ()
    ) -> None:
        thread = entry.id
        if entry.parent_id is not None:
            thread = self._find(tenant, Kind.RESPONSE, entry.parent_id).thread
        if entry.conversation_id is not None:
            thread = self._find(tenant, Kind.CONVERSATION, entry.conversation_id).thread
        until_s = self.clock() + LEASE_S if entry.status is Status.RUNNING else None
        self.kept[entry.id] = _Kept(tenant, entry, thread, until_s, answered)
        self._add(thread, items)

    def get(self, tenant: str, kind: Kind, id: str) -> Entry:
        found = self._find(tenant, kind, id)
        status = Status.ENDED
        if found.until_s is not None:
            status = Status.RUNNING if found.until_s > self.clock() else Status.ABANDONED
        return replace(found.entry, status=status)

    def chain(self, tenant: str, id: str) -> list[Entry]:
        entries: list[Entry] = []
        next_id: str | None = id
        while next_id is not None and len(entries) <= CHAIN.entries:
            if entries and next_id not in self.kept:
                break
            entry = self.get(tenant, Kind.RESPONSE, next_id)
            entries.insert(0, replace(entry, document=b""))
            next_id = entries[0].parent_id
        sizes = [len(one.input) + len(one.output) for one in entries]
        if len(entries) > CHAIN.entries or sum(sizes) > CHAIN.bytes:
            raise ChainTooLong("")
        if next_id is not None:
            raise UnknownEntry(next_id)
        return entries

    def lists_with(self, tenant: str, item_ids: Sequence[str]) -> list[bytes]:
        alive = [one for one in self.kept.values() if one.tenant == tenant]
        alive = [one for one in alive if not self._is_dead(one.thread)]
        outputs = [one.entry.output for one in alive if set(one.answered) & set(item_ids)]
        conversations = {one.entry.id for one in alive} & self.items_of.keys()
        items = [one for id in conversations for one in self.items_of[id] if one.id in item_ids]
        if sum(map(len, outputs)) + sum(len(one.body) for one in items) > CHAIN.bytes:
            raise ChainTooLong("")
        return outputs + [b"[" + one.body + b"]" for one in items]

    def end(
        self,
        tenant: str,
        id: str,
        *,
        document: bytes,
        output: bytes,
        items: Sequence[Item] = (),
        answered: Sequence[str] = (),
    ) -> bool:
        found = self.kept.get(id)
        if found is None or found.tenant != tenant or found.until_s is None:
            return False
        if self._is_dead(found.thread):
            return False
        if items:
            self._find(tenant, Kind.CONVERSATION, found.entry.conversation_id or "")
        found.entry = replace(found.entry, document=document, output=output, status=Status.ENDED)
        found.until_s, found.answered = None, answered
        self._add(found.thread, items)
        return True

    def renew(self, ids: Sequence[str]) -> set[str]:
        found = {id: self.kept[id] for id in ids if id in self.kept}
        running = {
            id
            for id, one in found.items()
            if one.until_s is not None and not self._is_dead(one.thread)
        }
        for id in running:
            found[id].until_s = self.clock() + LEASE_S
            self._add(found[id].thread, ())
        return running

    def replace(self, tenant: str, kind: Kind, id: str, document: bytes) -> None:
        found = self._find(tenant, kind, id)
        found.entry = replace(found.entry, document=document)
        self._add(found.thread, ())

    def delete(self, tenant: str, kind: Kind, id: str) -> None:
        self._find(tenant, kind, id)
        del self.kept[id]
        self.items_of.pop(id, None)

    def add_items(self, tenant: str, conversation_id: str, items: Sequence[Item]) -> None:
        self._add(self._find(tenant, Kind.CONVERSATION, conversation_id).thread, items)

    def items(self, tenant: str, conversation_id: str) -> list[Item]:
        self._find(tenant, Kind.CONVERSATION, conversation_id)
        found = self.items_of.get(conversation_id, [])
        if len(found) > CHAIN.entries or sum(len(one.body) for one in found) > CHAIN.bytes:
            raise ChainTooLong("")
        return found

    def delete_item(self, tenant: str, conversation_id: str, item_id: str) -> None:
        self._find(tenant, Kind.CONVERSATION, conversation_id)
        found = self.items_of.get(conversation_id, [])
        left = [item for item in found if item.id != item_id]
        if left == found:
            raise UnknownEntry(item_id)
        self.items_of[conversation_id] = left

    def sweep(self) -> None:
        """What has expired cannot be seen before it, nor after it."""
        self.kept = {id: one for id, one in self.kept.items() if not self._is_dead(one.thread)}

    def _find(self, tenant: str, kind: Kind, id: str) -> _Kept:
        found = self.kept.get(id)
        if found is None or found.tenant != tenant or found.entry.kind is not kind:
            raise UnknownEntry(id)
        if self._is_dead(found.thread):
            raise UnknownEntry(id)
        return found

    def _is_dead(self, thread: str) -> bool:
        return self.used_s[thread] <= self.clock() - TTL_S

    def _add(self, thread: str, items: Sequence[Item]) -> None:
        self.used_s[thread] = self.clock()
        known = {item.id for item in self.items_of.get(thread, [])}
        self.items_of.setdefault(thread, []).extend(one for one in items if one.id not in known)


def outcome(work: Callable[[], Any]) -> Any:
    """What it gives, or the type of what it raises, with the id that is unknown."""
    try:
        return work()
    except UnknownEntry as error:
        return UnknownEntry, error.id
    except (ChainTooLong, StoreError) as error:
        return type(error)
