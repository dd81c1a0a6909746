"""Which statements keep the items of conversations, and find any item by its id?"""

from collections.abc import Collection, Sequence

from gateway.store.database import Transaction
from gateway.store.response_store import ChainTooLong, Item, Kind, UnknownEntry
from gateway.store.thread_rows import (
    Bounds,
    Moment,
    can_be_id,
    check_id,
    shrink,
    thread_of,
    use,
)


def items_size(items: Sequence[Item]) -> int:
    return sum(len(item.body) for item in items)


def append(run: Transaction, conversation: str, items: Sequence[Item]) -> None:
    for item in items:
        run(
            """INSERT INTO stored_items (conversation, id, size_bytes, body) VALUES (?, ?, ?, ?)
            ON CONFLICT (conversation, id) DO NOTHING""",
            *(conversation, item.id, len(item.body), item.body),
        )


def note_answered(run: Transaction, entry: str, answered: Collection[str]) -> None:
    for id in answered:
        run("INSERT INTO stored_answered VALUES (?, ?) ON CONFLICT DO NOTHING", id, entry)


def add_items(
    run: Transaction, at: Moment, tenant: str, conversation: str, items: Sequence[Item]
) -> None:
    thread = thread_of(run, at, tenant, Kind.CONVERSATION, conversation)
    append(run, thread, items)
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
    shrink(run, thread, gone[0][0])
