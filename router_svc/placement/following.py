"""When is placement changed to even out the load, and how far at once?

Pure (the clock is passed in). Three rules prevent useless moves: the busiest pool has to be
above a bound for some time; a plan has to take enough of its work away; and nothing begins
while an earlier change is under way. A token bucket limits the pieces loaded per minute.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from router_svc.placement.board import Host
from router_svc.placement.planner import Plan

log = logging.getLogger(__name__)

MIN_WORK = 100.0
"""Recent work of the mean piece below which the counts say too little to act on."""
LOOK_EVERY_S = 5.0
VERDICTS = ("off", "no_record", "balanced", "waiting", "moving", "no_gain", "moved")


@dataclass(frozen=True, kw_only=True)
class FollowingRules:
    """The operator's limits."""

    on: bool = True
    half_life_s: float = 300.0  # after which an activation counts half
    imbalance: float = 1.2  # the busiest pool's work over the mean, above which pieces move
    imbalance_s: float = 30.0  # how long it has to stay above that
    min_gain: float = 0.05  # share of the busiest pool's work that a plan has to take away
    pieces_per_minute: int = 64  # loaded to even out the load


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The outcome of the last check."""

    verdict: str  # of VERDICTS
    reason: str
    at_s: float


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A plan, the reason for it, and how much it changes."""

    plan: Plan
    why: str
    loaded: int  # pieces
    dropped: int


class LoadFollower:
    """Checks the load every few seconds. `look` runs on any thread, one at a time; the other
    methods on the event loop."""

    def __init__(self, rules: FollowingRules):
        self._rules = rules
        self._beyond_since_s: float | None = None
        self._looked_at_s: float | None = None
        self._filled_at_s: float | None = None
        self._bucket = float(rules.pieces_per_minute)
        self.imbalance = 1.0  # at the last check
        self.loaded_pieces = self.dropped_pieces = 0  # since the start, to even out the load
        self.last = Decision(verdict="off", reason="--no-follow-load", at_s=0.0)
        if rules.on:
            self.last = Decision(verdict="no_record", reason="nothing routed yet", at_s=0.0)

    def due(self, now_s: float) -> bool:
        """Whether it is time for another check."""
        if not self._rules.on:
            return False
        every_s = min(LOOK_EVERY_S, max(0.25, self._rules.imbalance_s / 2))
        return self._looked_at_s is None or now_s - self._looked_at_s >= every_s

    def look(
        self,
        now_s: float,
        hosts: Sequence[Host],
        *,
        work: float,
        surplus: bool,
        largest: int,
        imbalance: Callable[[], float],
        planned: Callable[[float], Plan],
        moving: bool,
    ) -> Proposal | None:
        """A new plan, if there is a reason to change the placement.

        Args:
            hosts: as they are now.
            work: recent work of the mean piece.
            surplus: some pieces have more holders than every piece should have.
            largest: how many pieces move together.
            imbalance: computes the hosts' imbalance.
            planned: makes a plan, given how many pieces it may load to even out the load.
            moving: an earlier change is under way.
        """
        rules = self._rules
        self._looked_at_s = now_s
        self._fill(now_s, largest)
        if work < MIN_WORK:
            self._decide("no_record", "too little was routed lately", now_s)
            return None
        if moving:
            self._decide("moving", "pools are still loading or unloading", now_s)
            return None
        self.imbalance = imbalance()
        wanted = None
        if self.imbalance <= rules.imbalance:
            # Balanced; but pieces that are no longer hot may lose their additional holders.
            wanted = planned(0) if surplus else None
            held = sum(len(host.current) for host in hosts)
            if wanted is None or sum(map(len, wanted.hold.values())) >= held:
                self._beyond_since_s = None
                self._decide("balanced", f"imbalance {self.imbalance:.2f}", now_s)
                return None
        if self._beyond_since_s is None:
            self._beyond_since_s = now_s
        what = (
            f"imbalance {self.imbalance:.2f} of {rules.imbalance:g}"
            if wanted is None
            else "experts have cooled down"
        )
        if (left_s := self._beyond_since_s + rules.imbalance_s - now_s) > 0:
            self._decide("waiting", f"{what}, acting in {left_s:.0f} s", now_s)
            return None
        if wanted is None:
            wanted = planned(float("inf"))
            gain = 1 - wanted.imbalance / self.imbalance
            if gain < rules.min_gain or wanted.gained(hosts) == 0:
                # Wait for imbalance_s again before the next plan.
                self._beyond_since_s = now_s
                self._decide("no_gain", f"{what}; a plan would gain {gain:.1%}", now_s)
                return None
            what += f", {wanted.imbalance:.2f} in the end"
            if wanted.gained(hosts) > self._bucket:
                wanted = planned(self._bucket)
        loaded = wanted.gained(hosts)
        dropped = sum(len(host.current - wanted.hold[host.pool_id]) for host in hosts)
        if not loaded and not dropped:
            self._decide("waiting", f"{what}; waiting for --pieces-per-minute", now_s)
            return None
        return Proposal(plan=wanted, why=what, loaded=loaded, dropped=dropped)

    def follow(self, proposal: Proposal, now_s: float) -> None:
        """Note that a proposal is being carried out."""
        self._bucket -= proposal.loaded
        self.loaded_pieces += proposal.loaded
        self.dropped_pieces += proposal.dropped
        reason = f"{proposal.why}: {proposal.loaded} pieces load, {proposal.dropped} go"
        self._decide("moved", reason, now_s)
        log.info("following the load: %s", reason)

    def _fill(self, now_s: float, largest: int) -> None:
        per_minute = self._rules.pieces_per_minute
        if self._filled_at_s is not None:
            self._bucket += per_minute / 60 * (now_s - self._filled_at_s)
        self._filled_at_s = now_s
        self._bucket = min(self._bucket, max(per_minute, largest))

    def _decide(self, verdict: str, reason: str, now_s: float) -> None:
        self.last = Decision(verdict=verdict, reason=reason, at_s=now_s)
