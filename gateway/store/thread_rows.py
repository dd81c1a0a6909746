"""Which statements find and use threads, and what do all statements need? See `database.py`.

The statements are those that SQLite and PostgreSQL have in common.
"""

import hashlib
import re
from dataclasses import dataclass

from gateway.store.database import Transaction
from gateway.store.response_store import Kind, UnknownEntry

_ID = re.compile(r"[A-Za-z0-9_\-.:]{1,200}")
OWN = """FROM stored_entries e JOIN stored_threads t ON t.id = e.thread
    WHERE e.id = ? AND e.tenant = ? AND e.kind = ? AND t.used_s > ?"""
"""An entry of a tenant, by its id and kind, unless it has expired."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """When something is asked."""

    now_s: float
    dead_before_s: float
    """Threads last used until then have expired."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Of what is read at once."""

    entries: int
    bytes: int


def column(tenant: str) -> str:
    """A name without what is secret in it, and of characters that every database takes."""
    return hashlib.sha256(tenant.encode("utf-8", "surrogatepass")).hexdigest()


def can_be_id(id: str) -> bool:
    """Whether it may be asked for: databases do not take every character."""
    return _ID.fullmatch(id) is not None


def check_id(id: str) -> None:
    """Raises UnknownEntry for what cannot be an id."""
    if not can_be_id(id):
        raise UnknownEntry(id)


def thread_of(run: Transaction, at: Moment, tenant: str, kind: Kind, id: str) -> str:
    """Raises UnknownEntry."""
    check_id(id)
    rows = run(f"SELECT e.thread {OWN}", id, tenant, kind.value, at.dead_before_s)
    if not rows:
        raise UnknownEntry(id)
    return str(rows[0][0])


def use(run: Transaction, at: Moment, thread: str, grown_bytes: int, asked: str) -> None:
    """A thread goes on. Raises UnknownEntry naming `asked` if it is being removed."""
    rows = run(
        """UPDATE stored_threads SET used_s = ?, size_bytes = size_bytes + ?
        WHERE id = ? AND used_s > ? RETURNING id""",
        *(at.now_s, grown_bytes, thread, at.dead_before_s),
    )
    if not rows:
        raise UnknownEntry(asked)


def shrink(run: Transaction, thread: str, gone_bytes: int) -> None:
    run("UPDATE stored_threads SET size_bytes = size_bytes - ? WHERE id = ?", gone_bytes, thread)
