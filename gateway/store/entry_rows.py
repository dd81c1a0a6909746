"""Which statements keep entries? Each function is part of one transaction."""

from collections.abc import Collection, Sequence
from typing import Any

from gateway.store.database import Transaction
from gateway.store.item_rows import append, items_size, note_answered
from gateway.store.response_store import ChainTooLong, Entry, Item, Kind, Status, UnknownEntry
from gateway.store.thread_rows import (
    OWN,
    Bounds,
    Moment,
    can_be_id,
    check_id,
    shrink,
    thread_of,
    use,
)

_COLUMNS = "e.id, e.kind, e.created_s, e.document, e.input, e.output, e.parent, e.conversation"
_WITHOUT_DOCUMENT = _COLUMNS.replace("e.document", "NULL")


def size_of(entry: Entry, items: Sequence[Item] = ()) -> int:
    return len(entry.document) + len(entry.input) + len(entry.output) + items_size(items)


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
    append(run, thread, items)
    note_answered(run, entry.id, answered)


def get(run: Transaction, at: Moment, tenant: str, kind: Kind, id: str) -> Entry:
    check_id(id)
    rows = run(
        f"SELECT {_COLUMNS}, e.running_until_s {OWN}", id, tenant, kind.value, at.dead_before_s
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
        append(run, thread, items)
    note_answered(run, id, answered)
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
    shrink(run, thread, sum(row[0] for row in gone))
    run(
        """DELETE FROM stored_threads WHERE id = ?
        AND NOT EXISTS (SELECT 1 FROM stored_entries WHERE thread = ?)""",
        *(thread, thread),
    )
