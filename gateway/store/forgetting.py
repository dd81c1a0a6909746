"""What is removed, and when? What has expired, and without room what was used longest ago.

Of the latter, the oldest of the client that holds the most, so that no client pushes out another's.
Removing is done in small steps, between which the store answers.
"""

from gateway.store.database import Transaction

_STEP_ROWS = 32
_STEP_THREADS = 100
EXPIRED_S = 0.0
"""Last use of a thread that must go, whatever its age."""


def remove_some(run: Transaction, dead_before_s: float) -> int:
    """Remove a few of the entries and items that have expired. 0: none were left."""
    entries = run(
        """DELETE FROM stored_entries WHERE seq IN (
            SELECT e.seq FROM stored_entries e JOIN stored_threads t ON t.id = e.thread
            WHERE t.used_s <= ? LIMIT ?) RETURNING id""",
        *(dead_before_s, _STEP_ROWS),
    )
    items = run(
        """DELETE FROM stored_items WHERE seq IN (
            SELECT i.seq FROM stored_items i JOIN stored_threads t ON t.id = i.conversation
            WHERE t.used_s <= ? LIMIT ?) RETURNING id""",
        *(dead_before_s, _STEP_ROWS),
    )
    if not entries and not items:
        run("DELETE FROM stored_threads WHERE used_s <= ?", dead_before_s)
    return len(entries) + len(items)


def expire_oldest(run: Transaction, excess_bytes: int, dead_before_s: float) -> int:
    """Let threads expire that hold so many bytes together, oldest first; how many threads.

    Always of the tenant that holds the most at that point.
    """
    held: dict[str, int] = dict(
        run(
            """SELECT tenant, CAST(SUM(size_bytes) AS BIGINT) FROM stored_threads
            WHERE used_s > ? GROUP BY tenant""",
            dead_before_s,
        )
    )
    count = 0
    while excess_bytes > 0 and held:
        tenant = max(held, key=lambda one: held[one])
        next_bytes = max((size for one, size in held.items() if one != tenant), default=0)
        oldest = run(
            """SELECT id, size_bytes FROM stored_threads WHERE tenant = ? AND used_s > ?
            ORDER BY used_s, id LIMIT ?""",
            *(tenant, dead_before_s, _STEP_THREADS),
        )
        if not oldest:
            del held[tenant]
        for thread, size_bytes in oldest:
            run("UPDATE stored_threads SET used_s = ? WHERE id = ?", EXPIRED_S, thread)
            count += 1
            held[tenant] -= size_bytes
            excess_bytes -= size_bytes
            if excess_bytes <= 0 or held[tenant] < next_bytes:
                break
    return count
