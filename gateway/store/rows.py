"""Which statements keep entries, threads and items? Each function is part of one transaction.

The statements are those that SQLite and PostgreSQL have in common.
"""

import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.store.database import Transaction
from gateway.store.response_store import ChainTooLong, Entry, Item, Kind, Status, UnknownEntry

_ID = re.compile(r"[A-Za-z0-9_\-.:]{1,200}")
_COLUMNS = "e.id, e.kind, e.created_s, e.document, e.input, e.output, e.parent, e.conversation"
_WITHOUT_DOCUMENT = _COLUMNS.replace("e.document", "NULL")
_OWN = """FROM stored_entries e JOIN stored_threads t ON t.id = e.thread
    WHERE e.id = ? AND e.tenant = ? AND e.kind = ? AND t.used_s > ?"""


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


def size_of(entry: Entry, items: Sequence[Item] = ()) -> int:
    return len(entry.document) + len(entry.input) + len(entry.output) + items_size(items)


def items_size(items: Sequence[Item]) -> int:
    return sum(len(item.body) for item in items)


def put(
    run: Transaction,
    at: Moment,
    tenant: str,
    entry: Entry,
    items: Sequence[Item],
    answered: Collection[str],
    running_until_s: float | None,
) -> None:
    if run("SELECT 1 FROM stored_entries WHERE id = ?", entry.id):
        return  # sent again after a connection was lost: it had arrived
    size_bytes = size_of(entry, items)
    kind, before = Kind.RESPONSE, entry.parent_id
    if entry.conversation_id is not None:
        kind, before = Kind.CONVERSATION, entry.conversation_id
    if before is None:
        thread = entry.id
        run("INSERT INTO stored_threads VALUES (?, ?, ?, ?)", thread, tenant, at.now_s, size_bytes)
    else:
        thread = thread_of(run, at, tenant, kind, before)
        use(run, at, thread, size_bytes, before)
    run(
        """INSERT INTO stored_entries (id, tenant, kind, thread, parent, conversation, created_s,
            running_until_s, size_bytes, document, input, output)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
        *(entry.id, tenant, entry.kind.value, thread, entry.parent_id, entry.conversation_id),
        *(entry.created_s, running_until_s, size_of(entry)),
        *(entry.document, entry.input, entry.output),
    )
    _add_items(run, thread, items)
    _note_answered(run, entry.id, answered)


def thread_of(run: Transaction, at: Moment, tenant: str, kind: Kind, id: str) -> str:
    """Raises UnknownEntry."""
    check_id(id)
    rows = run(f"SELECT e.thread {_OWN}", id, tenant, kind.value, at.dead_before_s)
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


def _add_items(run: Transaction, conversation: str, items: Sequence[Item]) -> None:
    for item in items:
        run(
            """INSERT INTO stored_items (conversation, id, size_bytes, body) VALUES (?, ?, ?, ?)
            ON CONFLICT (conversation, id) DO NOTHING""",
            *(conversation, item.id, len(item.body), item.body),
        )


def _note_answered(run: Transaction, entry: str, answered: Collection[str]) -> None:
    for id in answered:
        run("INSERT INTO stored_answered VALUES (?, ?) ON CONFLICT DO NOTHING", id, entry)


def get(run: Transaction, at: Moment, tenant: str, kind: Kind, id: str) -> Entry:
    check_id(id)
    rows = run(
        f"SELECT {_COLUMNS}, e.running_until_s {_OWN}", id, tenant, kind.value, at.dead_before_s
    )
    if not rows:
        raise UnknownEntry(id)
    return _entry(rows[0], at)


def _entry(row: tuple[Any, ...], at: Moment) -> Entry:
    id, kind, created_s, document, input, output, parent, conversation, until_s = row
    status = Status.ENDED
    if until_s is not None:
        status = Status.RUNNING if until_s > at.now_s else Status.ABANDONED
    return Entry(
        id=id,
        kind=Kind(kind),
        created_s=created_s,
        document=bytes(document or b""),
        input=bytes(input),
        output=bytes(output),
        parent_id=parent,
        conversation_id=conversation,
        status=status,
    )


def chain(run: Transaction, at: Moment, tenant: str, id: str, most: Bounds) -> list[Entry]:
    """Sizes first: what is too much is never loaded."""
    thread = thread_of(run, at, tenant, Kind.RESPONSE, id)
    # One more than may be, so that what is beyond shows.
    steps = run(
        """WITH RECURSIVE steps (seq, id, parent, depth, size_bytes) AS (
            SELECT seq, id, parent, 1, LENGTH(input) + LENGTH(output) FROM stored_entries
            WHERE id = ? AND thread = ?
            UNION ALL
            SELECT e.seq, e.id, e.parent, s.depth + 1, LENGTH(e.input) + LENGTH(e.output)
            FROM steps s JOIN stored_entries e ON e.id = s.parent
            WHERE e.thread = ? AND s.depth <= ?)
        SELECT seq, parent, depth, size_bytes FROM steps ORDER BY depth DESC""",
        *(id, thread, thread, most.entries),
    )
    if len(steps) > most.entries:
        raise ChainTooLong(f"more than {most.entries} answers come before this one")
    total_bytes = sum(step[3] for step in steps)
    if total_bytes > most.bytes:
        raise ChainTooLong(f"what came before has {total_bytes} bytes, at most {most.bytes}")
    if steps[0][1] is not None:  # one in between was deleted
        raise UnknownEntry(steps[0][1])
    places = ", ".join("?" * len(steps))
    rows = run(
        f"""SELECT {_WITHOUT_DOCUMENT}, e.running_until_s FROM stored_entries e
        WHERE e.seq IN ({places})
        ORDER BY e.seq""",
        *(step[0] for step in steps),
    )
    return [_entry(row, at) for row in rows]


def end(
    run: Transaction,
    at: Moment,
    tenant: str,
    id: str,
    document: bytes,
    output: bytes,
    items: Sequence[Item],
    answered: Collection[str],
) -> bool:
    if not can_be_id(id):
        return False
    rows = run(
        """SELECT e.thread, e.conversation, LENGTH(e.document) + LENGTH(e.output)
        FROM stored_entries e JOIN stored_threads t ON t.id = e.thread
        WHERE e.id = ? AND e.tenant = ? AND t.used_s > ? AND e.running_until_s IS NOT NULL""",
        *(id, tenant, at.dead_before_s),
    )
    if not rows:
        return False
    thread, conversation, had_bytes = rows[0]
    grown_bytes = len(document) + len(output) - had_bytes
    ended = run(
        """UPDATE stored_entries SET document = ?, output = ?, running_until_s = NULL,
            size_bytes = size_bytes + ?
        WHERE id = ? AND running_until_s IS NOT NULL RETURNING id""",
        *(document, output, grown_bytes, id),
    )
    if not ended:
        return False
    if items:
        thread_of(run, at, tenant, Kind.CONVERSATION, conversation or "")
        _add_items(run, thread, items)
    _note_answered(run, id, answered)
    use(run, at, thread, grown_bytes + items_size(items), id)
    return True


def renew(run: Transaction, at: Moment, ids: Sequence[str], until_s: float) -> set[str]:
    renewed = set()
    for id in filter(can_be_id, ids):
        threads = run(
            """UPDATE stored_threads SET used_s = ? WHERE used_s > ? AND id = (
                SELECT thread FROM stored_entries WHERE id = ? AND running_until_s IS NOT NULL)
            RETURNING id""",
            *(at.now_s, at.dead_before_s, id),
        )
        if threads:
            run(
                """UPDATE stored_entries SET running_until_s = ?
                WHERE id = ? AND running_until_s IS NOT NULL""",
                *(until_s, id),
            )
            renewed.add(id)
    return renewed


def replace(
    run: Transaction, at: Moment, tenant: str, kind: Kind, id: str, document: bytes
) -> None:
    had = get(run, at, tenant, kind, id)
    grown_bytes = len(document) - len(had.document)
    run(
        "UPDATE stored_entries SET document = ?, size_bytes = size_bytes + ? WHERE id = ?",
        *(document, grown_bytes, id),
    )
    use(run, at, thread_of(run, at, tenant, kind, id), grown_bytes, id)


def delete(run: Transaction, at: Moment, tenant: str, kind: Kind, id: str) -> None:
    thread = thread_of(run, at, tenant, kind, id)
    gone = run("DELETE FROM stored_entries WHERE id = ? RETURNING size_bytes", id)
    gone += run("DELETE FROM stored_items WHERE conversation = ? RETURNING size_bytes", id)
    _shrink(run, thread, sum(row[0] for row in gone))
    run(
        """DELETE FROM stored_threads WHERE id = ?
        AND NOT EXISTS (SELECT 1 FROM stored_entries WHERE thread = ?)""",
        *(thread, thread),
    )


def _shrink(run: Transaction, thread: str, gone_bytes: int) -> None:
    run("UPDATE stored_threads SET size_bytes = size_bytes - ? WHERE id = ?", gone_bytes, thread)


def add_items(
    run: Transaction, at: Moment, tenant: str, conversation: str, items: Sequence[Item]
) -> None:
    thread = thread_of(run, at, tenant, Kind.CONVERSATION, conversation)
    _add_items(run, thread, items)
    use(run, at, thread, items_size(items), conversation)


def items_of(
    run: Transaction, at: Moment, tenant: str, conversation: str, most: Bounds
) -> list[Item]:
    thread = thread_of(run, at, tenant, Kind.CONVERSATION, conversation)
    count, total_bytes = run(
        """SELECT COUNT(*), CAST(COALESCE(SUM(size_bytes), 0) AS BIGINT) FROM stored_items
        WHERE conversation = ?""",
        thread,
    )[0]
    if count > most.entries:
        raise ChainTooLong(f"the conversation has {count} items, at most {most.entries}")
    if total_bytes > most.bytes:
        raise ChainTooLong(f"the conversation has {total_bytes} bytes, at most {most.bytes}")
    rows = run("SELECT id, body FROM stored_items WHERE conversation = ? ORDER BY seq", thread)
    return [Item(id=id, body=bytes(body)) for id, body in rows]


def lists_with(
    run: Transaction, at: Moment, tenant: str, item_ids: Collection[str], most: Bounds
) -> list[bytes]:
    ids = [id for id in item_ids if can_be_id(id)]
    if len(ids) > most.entries:
        raise ChainTooLong(f"{len(ids)} items are named, at most {most.entries}")
    if not ids:
        return []
    places = ", ".join("?" * len(ids))
    asked = (*ids, tenant, at.dead_before_s)
    outputs = f"""FROM stored_entries e JOIN stored_threads t ON t.id = e.thread
        WHERE e.id IN (SELECT a.entry FROM stored_answered a WHERE a.id IN ({places}))
        AND e.tenant = ? AND t.used_s > ?"""
    items = f"""FROM stored_items i JOIN stored_threads t ON t.id = i.conversation
        WHERE i.id IN ({places}) AND t.tenant = ? AND t.used_s > ?"""
    total_bytes = sum(
        run(f"SELECT CAST(COALESCE(SUM({size}), 0) AS BIGINT) {where}", *asked)[0][0]
        for size, where in (("LENGTH(e.output)", outputs), ("i.size_bytes", items))
    )
    if total_bytes > most.bytes:
        raise ChainTooLong(f"what has them holds {total_bytes} bytes, at most {most.bytes}")
    lists = [bytes(output) for (output,) in run(f"SELECT e.output {outputs}", *asked)]
    return lists + [b"[%b]" % bytes(body) for (body,) in run(f"SELECT i.body {items}", *asked)]


def delete_item(run: Transaction, at: Moment, tenant: str, conversation: str, item_id: str) -> None:
    thread = thread_of(run, at, tenant, Kind.CONVERSATION, conversation)
    check_id(item_id)
    gone = run(
        "DELETE FROM stored_items WHERE conversation = ? AND id = ? RETURNING size_bytes",
        *(thread, item_id),
    )
    if not gone:
        raise UnknownEntry(item_id)
    _shrink(run, thread, gone[0][0])
