"""How do several clients share places in a queue, and a few slots of work, fairly?

A client is a tenant: an API key, whatever else its requests have in common. How much one asks for
decides how long it waits itself, never how long others do.
"""

import asyncio
import itertools
from collections import Counter, deque
from collections.abc import Mapping

from rpc.errors import Overloaded

SHARE = 7
"""A client may wait with so many requests for each place that is still free: one alone gets 7/8."""


def may_wait(own: int, waiting: int, most: int, adding: int = 1) -> bool:
    """Whether a client with `own` of the `waiting` may add `adding`, of `most` places in all.

    The share shrinks as the queue fills, so that some places are left for whoever comes next. Who
    has nothing in the queue takes what is left.
    """
    free = most - waiting - adding
    return free >= 0 and (own == 0 or own + adding <= SHARE * (free + 1))


def equal_shares(wanted: Mapping[str, int], total: int) -> dict[str, int]:
    """As much of `total` for each client as for any other, but for none more than it wants.

    What one does not want goes to the others; what cannot be divided, to the first of them.
    """
    shares, left = dict(wanted), total
    unserved = sorted(wanted, key=lambda client: wanted[client], reverse=True)
    while unserved and wanted[unserved[-1]] * len(unserved) <= left:
        left -= wanted[unserved.pop()]
    if unserved:
        each, over = divmod(left, len(unserved))
        for place, client in enumerate(one for one in wanted if one in set(unserved)):
            shares[client] = each + (place < over)
    return shares


class FairSlots:
    """A few slots and who waits for them. For one event loop.

    A free slot goes to the client that holds fewest, of those the one that was served longest ago.
    No client holds all of them: one is always free for the others.
    """

    def __init__(self, num_slots: int, *, max_waiting: int, what: str):
        """`what` is waiting when there are too many, for the message."""
        assert num_slots >= 2, "one is for clients other than the busiest"
        self._num_slots = num_slots
        self._max_waiting = max_waiting
        self._what = what
        self._running: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        self._turns = itertools.count(1)
        self._last_turn: dict[str, int] = {}
        """Of clients that are here: when each was served last."""

    @property
    def num_waiting(self) -> int:
        return sum(map(len, self._waiting.values()))

    async def acquire(self, client: str) -> None:
        """Wait for a slot; `release` gives it back. Raises Overloaded when too many wait."""
        if not self._waiting.get(client) and self._has_slot_for(client):
            self._serve(client)
            return
        queue = self._waiting.get(client, deque())
        own = len(queue) if client else 0  # nobody's name: several that cannot be told apart
        if not may_wait(own, self.num_waiting, self._max_waiting):
            raise Overloaded(f"too many {self._what} are waiting already; try again later")
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(client, queue).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._remove(client, turn)
                self._forget_idle(client)
            else:  # it was served in the same moment
                self.release(client)
            raise

    def release(self, client: str) -> None:
        """A slot is free again: whose turn is it?"""
        self._running[client] -= 1
        while able := [name for name in self._waiting if self._has_slot_for(name)]:
            chosen = min(able, key=lambda name: (self._running[name], self._last_turn.get(name, 0)))
            turn = self._waiting[chosen][0]
            self._remove(chosen, turn)
            if not turn.done():
                self._serve(chosen)
                turn.set_result(None)
        self._forget_idle(client)

    def _serve(self, client: str) -> None:
        self._running[client] += 1
        self._last_turn[client] = next(self._turns)

    def _has_slot_for(self, client: str) -> bool:
        free = self._num_slots - self._running.total()
        return free > 0 and self._running[client] < self._num_slots - 1

    def _remove(self, client: str, turn: "asyncio.Future[None]") -> None:
        queue = self._waiting.get(client, deque())
        if turn in queue:  # one that was cancelled may have been passed over already
            queue.remove(turn)
        if not queue:
            self._waiting.pop(client, None)

    def _forget_idle(self, client: str) -> None:
        if not self._running[client] and client not in self._waiting:
            self._running.pop(client, None)
            self._last_turn.pop(client, None)
