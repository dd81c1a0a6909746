"""How do several clients share places in a queue, and a few slots of work, fairly?

A client is a tenant: for example, all requests with one API key. How much one client asks for
decides how long it waits itself, never how long others do.
"""

import asyncio
import itertools
from collections import Counter, deque
from collections.abc import Mapping
from typing import Generic, TypeVar

from rpc.errors import Overloaded

Item = TypeVar("Item")

SHARE = 7
"""A client may have this many waiting requests per free place: one alone gets 7/8 of them."""


def may_wait(own: int, waiting: int, most: int, adding: int = 1) -> bool:
    """Whether a client with `own` of the `waiting` may add `adding`, of `most` places in all.

    The share shrinks as the queue fills, so that some places are left for other clients. A client
    without any waiting request may take the last place.
    """
    free = most - waiting - adding
    return free >= 0 and (own == 0 or own + adding <= SHARE * (free + 1))


def equal_shares(wanted: Mapping[str, int], total: int) -> dict[str, int]:
    """Divide `total` equally among the clients, but give none more than it wants.

    What one does not want goes to the others; a remainder goes to the first of them.
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


class FairTurns(Generic[Item]):
    """Decides whose work begins next when a slot is free. No locks, no waiting.

    A free slot goes to the client that holds the fewest; among equals, to the one that was served
    longest ago. No client gets all slots: one is always left for the others.
    """

    def __init__(self, num_slots: int):
        assert num_slots >= 2, "one slot is for clients other than the busiest"
        self._num_slots = num_slots
        self._running: Counter[str] = Counter()
        self._waiting: dict[str, deque[Item]] = {}
        self._turns = itertools.count(1)
        self._last_turn: dict[str, int] = {}
        """When each client that runs or waits was last served, as a number of `_turns`."""

    @property
    def num_running(self) -> int:
        return self._running.total()

    @property
    def num_waiting(self) -> int:
        return sum(map(len, self._waiting.values()))

    def num_waiting_of(self, client: str) -> int:
        return len(self._waiting.get(client, ()))

    def has_slot_for(self, client: str) -> bool:
        free = self._num_slots - self._running.total()
        return free > 0 and self._running[client] < self._num_slots - 1

    def put(self, client: str, item: Item) -> None:
        self._waiting.setdefault(client, deque()).append(item)

    def take(self) -> tuple[str, Item] | None:
        """The next (client, item) that may begin, or None; call `done` when it has ended."""
        able = [client for client in self._waiting if self.has_slot_for(client)]
        if not able:
            return None
        client = min(able, key=lambda name: (self._running[name], self._last_turn.get(name, 0)))
        item = self._waiting[client][0]
        self._running[client] += 1
        self._last_turn[client] = next(self._turns)
        self.remove(client, item)
        return client, item

    def done(self, client: str) -> None:
        """One of the client's items has ended."""
        self._running[client] -= 1
        self._forget_idle(client)

    def remove(self, client: str, item: Item) -> None:
        """Take an item out of the queue, if it is there."""
        queue = self._waiting.get(client, deque())
        if item in queue:
            queue.remove(item)
        if not queue:
            self._waiting.pop(client, None)
        self._forget_idle(client)

    def _forget_idle(self, client: str) -> None:
        if not self._running[client] and client not in self._waiting:
            self._running.pop(client, None)
            self._last_turn.pop(client, None)


class FairSlots:
    """Slots that clients wait for and get in fair turns. For one event loop."""

    def __init__(self, num_slots: int, *, max_waiting: int, what: str):
        """`what`: names the waiting things in the message when there are too many."""
        self._max_waiting = max_waiting
        self._what = what
        self._turns = FairTurns[asyncio.Future[None]](num_slots)

    @property
    def num_running(self) -> int:
        return self._turns.num_running

    @property
    def num_waiting(self) -> int:
        return self._turns.num_waiting

    async def acquire(self, client: str) -> None:
        """Wait for a slot; `release` gives it back. Raises Overloaded when too many wait."""
        turns = self._turns
        waiting = turns.num_waiting_of(client)
        own = waiting if client else 0  # without a name, clients cannot be told apart
        if (waiting or not turns.has_slot_for(client)) and not may_wait(
            own, turns.num_waiting, self._max_waiting
        ):
            raise Overloaded(f"too many {self._what} are waiting already; try again later")
        turn = asyncio.get_running_loop().create_future()
        turns.put(client, turn)
        self._serve()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                turns.remove(client, turn)
            else:  # it got its slot at the same moment
                self.release(client)
            raise

    def release(self, client: str) -> None:
        """Free a slot, and give it to the next client."""
        self._turns.done(client)
        self._serve()

    def _serve(self) -> None:
        while (taken := self._turns.take()) is not None:
            client, turn = taken
            if turn.done():  # cancelled, but still in the queue
                self._turns.done(client)
            else:
                turn.set_result(None)
