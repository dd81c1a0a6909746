"""What is kept of an answer, and what can be asked of the place where it is kept?

A store knows no API: documents and items are JSON that it never reads. What belongs together, an
answer and all that continue it, or a conversation and its answers, is one thread, and lives for
as long after its last continuation as the store's limits say.
"""

import secrets
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Protocol

_ID_BYTES = 24


def new_id(prefix: str) -> str:
    """An id that nobody can guess."""
    return prefix + secrets.token_hex(_ID_BYTES)


class Kind(StrEnum):
    """What an entry is."""

    RESPONSE = "response"
    CONVERSATION = "conversation"


class Status(Enum):
    """How far an entry is."""

    RUNNING = "running"
    """Its gateway is still working on it."""
    ENDED = "ended"
    ABANDONED = "abandoned"
    """Its gateway died, or lost the store, before the end."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One item of a conversation."""

    id: str
    body: bytes
    """A JSON object."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One answer, or one conversation."""

    id: str
    kind: Kind
    created_s: float
    """Since the epoch."""
    document: bytes
    """A JSON object."""
    input: bytes = b"[]"
    """A JSON list: what was said in this turn."""
    output: bytes = b"[]"
    """A JSON list: what was answered."""
    parent_id: str | None = None
    """The answer that this one continues."""
    conversation_id: str | None = None
    """The conversation that it belongs to."""
    status: Status = Status.ENDED

    def __post_init__(self) -> None:
        if self.parent_id is not None and self.conversation_id is not None:
            raise ValueError("an entry has a parent_id or a conversation_id, not both")


class UnknownEntry(Exception):
    """No such entry or item: never there, deleted, expired, or another tenant's."""

    def __init__(self, id: str):
        super().__init__(f"nothing is stored under {id[:80]!a}")
        self.id = id


class ChainTooLong(Exception):
    """What came before is more than the limits allow; the message says which."""


class StoreError(Exception):
    """The store cannot do it now. It has been counted.

    `reason`: full (no room), unavailable (the file or the server), or busy (too much waits for it).
    """

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason


class ResponseStore(Protocol):
    """Entries of tenants. All methods raise StoreError; unknown ids raise UnknownEntry."""

    async def put(
        self,
        tenant: str,
        entry: Entry,
        items: Sequence[Item] = (),
        *,
        answered: Collection[str] = (),
    ) -> None:
        """Keep a new entry.

        `items` go to the end of its conversation, or of itself if it is one; `answered` are the ids
        of the items in its output. Raises UnknownEntry when its parent or conversation is gone;
        then nothing is kept.
        """

    async def get(self, tenant: str, kind: Kind, id: str) -> Entry:
        """One entry."""

    async def chain(self, tenant: str, id: str) -> list[Entry]:
        """The answer and all before it, oldest first, without documents. Raises ChainTooLong."""

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
        """Give a running entry its end; False: it has ended already, or is gone."""

    async def lists_with(self, tenant: str, item_ids: Collection[str]) -> list[bytes]:
        """JSON lists that have these items among others: outputs, and items of conversations.

        An unknown id is in none. Raises ChainTooLong.
        """

    async def renew(self, ids: Iterable[str]) -> set[str]:
        """Say that these are still worked on, at least every `RENEW_S`; those still running.

        The others were ended or deleted meanwhile, perhaps through another gateway.
        """

    async def replace(self, tenant: str, kind: Kind, id: str, document: bytes) -> None:
        """Give an entry another document."""

    async def delete(self, tenant: str, kind: Kind, id: str) -> None:
        """Remove an entry, and its items if it is a conversation."""

    async def add_items(self, tenant: str, conversation_id: str, items: Sequence[Item]) -> None:
        """Put items at the end of a conversation."""

    async def items(self, tenant: str, conversation_id: str) -> list[Item]:
        """All items of a conversation in order. Raises ChainTooLong."""

    async def delete_item(self, tenant: str, conversation_id: str, item_id: str) -> None:
        """Remove one item."""


RENEW_S = 10.0
LEASE_S = 30.0
"""An entry that is not renewed for this long is abandoned."""
