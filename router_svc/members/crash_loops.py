"""Which pools keep crashing, and for how long is each held back when it returns?

Pure (the clock is passed in). A process's life lasts from ready to its loss without a Leave; one
that was never ready has a life of 0. After `SHORT_LIVES` short lives in a row a returning pool is
held back for `FIRST_PAUSE_S`, and twice as long after each further one.
Only a pool that keeps its id through restarts can be recognised.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from router_svc.members.member import READY, Member
from rpc.mesh.pieces import Pieces

SHORT_LIFE_S = 10.0
SHORT_LIVES = 3
FIRST_PAUSE_S = 2.0
LONGEST_PAUSE_S = 60.0
FORGET_S = 600.0
"""An id that has not come back for this long no longer counts as crashing."""
MAX_IDS = 4096


@dataclass(slots=True)
class _Record:
    incarnation: int
    short_lives: int = 0  # in a row
    held_until_s: float = 0.0
    ready_at_s: float | None = None  # or, if later, the end of its pause
    lost_at_s: float | None = None

    def life_s(self, now_s: float) -> float:
        end_s = now_s if self.lost_at_s is None else self.lost_at_s
        return 0.0 if self.ready_at_s is None else end_s - self.ready_at_s


class CrashLoops:
    """The lives of pools by id."""

    def __init__(self) -> None:
        self._records: OrderedDict[str, _Record] = OrderedDict()

    def joined(self, pool: Member, now_s: float) -> float:
        """A pool joined. Returns how long to hold it back: 0 unless its predecessors crashed."""
        record = self._records.get(pool.member_id)
        if record is None:
            record = self._records[pool.member_id] = _Record(pool.incarnation)
        elif record.incarnation != pool.incarnation:
            is_short = record.life_s(now_s) < SHORT_LIFE_S
            record = _Record(pool.incarnation, record.short_lives + 1 if is_short else 0)
            self._records[pool.member_id] = record
            if record.short_lives >= SHORT_LIVES:
                doublings = min(record.short_lives - SHORT_LIVES, 16)
                record.held_until_s = now_s + min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**doublings)
        record.lost_at_s = None
        self._records.move_to_end(pool.member_id)
        if len(self._records) > MAX_IDS:
            self._records.popitem(last=False)
        return max(0.0, record.held_until_s - now_s)

    def reported(self, pool: Member, now_s: float) -> None:
        """A pool reported its state."""
        record = self._of(pool)
        is_ready = pool.status is not None and pool.status.state == READY
        if record is not None and is_ready and record.ready_at_s is None:
            record.ready_at_s = max(now_s, record.held_until_s)

    def ended(self, pool: Member, now_s: float, *, said_goodbye: bool) -> None:
        record = self._of(pool)
        if record is None:
            return
        if said_goodbye:
            del self._records[pool.member_id]
        else:
            record.lost_at_s = now_s

    def hold_back(self, pools: Sequence[Member], now_s: float) -> None:
        """Mark the pools whose pause is not over, except those that alone serve some piece."""
        suspects = [
            pool for pool in pools if (record := self._of(pool)) and now_s < record.held_until_s
        ]
        for pool in pools:
            pool.held_back = False
        trusted = [pool for pool in pools if pool not in suspects and pool.state == READY]
        served = Pieces.union(pool.ready - pool.retired for pool in trusted)
        for pool in suspects:
            if pool.ready - served:
                served |= pool.ready
            else:
                pool.held_back = True

    def looping(self, now_s: float) -> list[str]:
        """Ids whose last `SHORT_LIVES` processes all had short lives."""
        return [
            pool_id
            for pool_id, record in self._records.items()
            if record.short_lives + (record.lost_at_s is not None) >= SHORT_LIVES
            and record.life_s(now_s) < SHORT_LIFE_S
            and now_s - (record.lost_at_s or now_s) < FORGET_S
        ]

    def _of(self, pool: Member) -> _Record | None:
        """The record, if it is of this process and not of another with the same id."""
        record = self._records.get(pool.member_id)
        return record if record is not None and record.incarnation == pool.incarnation else None
