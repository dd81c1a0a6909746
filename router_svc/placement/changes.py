"""How do pools get from what they hold to what they should hold, while calls run?

Pure (the clock is passed in). New pieces are loaded first. When every pool that
should hold a piece serves it, the copies elsewhere are *retired*: the topology no longer
shows them. When every attention service has ACKed such a topology and `settle_s` has
passed, the pool is told to unload, which it does once the calls it had by then are
answered. So no call finds its piece gone, and no piece is ever without a holder if it
can have one.
"""

import math
from collections.abc import Mapping, Sequence

from router_svc.members.member import READY, Hidden, Member
from router_svc.placement.goals import PlacementRules
from rpc.mesh.pieces import Pieces

NOTHING = Pieces()


def serving(pool: Member) -> Pieces:
    return pool.ready if pool.state == READY else NOTHING


def retire(pools: Sequence[Member], *, called: bool) -> None:
    """Decide what the topology no longer shows; `called`: there are attention services.

    This is decided from scratch each time: when a pool that should take over is lost, the
    earlier holder is shown again, unless it has already been told to unload.
    """
    goals = {pool: pool.goal or NOTHING for pool in pools if not pool.leaving}
    awaited = Pieces.union(goal - serving(pool) for pool, goal in goals.items())
    taken_over = Pieces.union(goal & serving(pool) for pool, goal in goals.items()) - awaited
    for pool in pools:
        pool.retired = pool.unloading
        if pool.hold is not None:
            pool.retired |= pool.ready - pool.hold
        if pool.leaving:
            pool.retired |= pool.ready & taken_over if called else pool.ready - awaited
        elif pool.goal is not None:
            pool.retired |= (pool.ready - pool.goal) & taken_over


def note_hidden(pools: Sequence[Member], shown: Mapping[str, Pieces], counter: int) -> None:
    """Note since which version of the topology each held piece has not been shown."""
    for pool in pools:
        hidden = pool.ready - shown.get(pool.member_id, NOTHING)
        known = []
        for batch in pool.hidden:
            if still := batch.pieces & hidden:
                known.append(Hidden(still, batch.counter, batch.settled_at_s))
                hidden -= still
        pool.hidden = [*known, Hidden(hidden, counter)] if hidden else known


def settle(pools: Sequence[Member], acked: float, now_s: float, settle_s: float) -> None:
    """Note that every attention service has ACKed version `acked` (infinite: there is none)."""
    for pool in pools:
        for batch in pool.hidden:
            if batch.settled_at_s is None and batch.counter <= acked:
                batch.settled_at_s = now_s + (0.0 if math.isinf(acked) else settle_s)


def instruct(
    pools: Sequence[Member], rules: PlacementRules, now_s: float
) -> list[tuple[Member, Pieces, Pieces]]:
    """What pools are to be told now, beyond what they have been told on this stream: to hold
    exactly these pieces; and, when a pool is leaving, which of them only it holds."""
    told = []
    served = _Served(pools)
    busy = sum(_is_moving(pool, served) for pool in pools)
    for pool in pools:
        if pool.goal is None and not pool.leaving:
            continue
        hold = _next_hold(pool, served, now_s, may_move=busy < rules.max_moves)
        if hold is None:
            continue
        only_here = hold - served.beside(pool) if pool.leaving else NOTHING
        if pool.told == (hold, only_here, pool.leaving):
            continue
        busy -= _is_moving(pool, served)
        pool.hold, pool.told = hold, (hold, only_here, pool.leaving)
        busy += _is_moving(pool, served)
        told.append((pool, hold, only_here))
    return told


class _Served:
    """What do the other pools serve? Computed once, as the pieces of one and of more pools."""

    def __init__(self, pools: Sequence[Member]):
        self._once = self._twice = NOTHING
        for pool in pools:
            pieces = serving(pool)
            self._twice |= self._once & pieces
            self._once |= pieces

    def beside(self, pool: Member) -> Pieces:
        """The pieces that pools other than this one serve."""
        return self._twice | (self._once - serving(pool))


def _next_hold(pool: Member, served: _Served, now_s: float, *, may_move: bool) -> Pieces | None:
    """What a pool may hold next: its goal, and what must not be unloaded yet.

    None for a pool that has not been told anything yet and need not be.
    """
    assert pool.offer is not None
    hold = pool.ready if pool.hold is None else pool.hold
    goal = NOTHING if pool.leaving else (pool.goal or NOTHING)
    settled = Pieces.union(
        batch.pieces
        for batch in pool.hidden
        if batch.settled_at_s is not None and batch.settled_at_s <= now_s
    )
    kept = hold & (goal | (pool.ready - settled))
    if pool.leaving and kept:
        kept = hold  # all or nothing: a pool that takes over may still be lost
    wanted = goal - hold - pool.unloading
    elsewhere = served.beside(pool)
    capacity = pool.offer.capacity_pieces or len(pool.offer.available)
    room = capacity - len(kept | (pool.ready & hold) | pool.unloading)
    added = (wanted - elsewhere).first(room)
    if may_move or _is_moving(pool, served):
        added |= (wanted & elsewhere).first(room - len(added))
    if pool.told is None and wanted and not added and not kept:
        return None
    return kept | added


def _is_moving(pool: Member, served: _Served) -> bool:
    """Whether a pool is loading what others serve."""
    loading = (pool.hold or NOTHING) - pool.ready
    return bool(loading) and bool(loading & served.beside(pool))
