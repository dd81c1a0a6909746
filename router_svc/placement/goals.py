"""What should each pool hold in the end, and when is that decided again?

Pure (the clock is passed in). How a pool gets to its goal without a gap is in `changes`.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from router_svc.members.member import Member, Model, asked_for
from router_svc.placement.board import Board, Host
from router_svc.placement.following import FollowingRules
from router_svc.placement.planner import Plan, plan
from router_svc.placement.speeds import relative_speeds
from rpc.mesh.pieces import Pieces

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PlacementRules:
    """The operator's rules of placement."""

    replicas: int = 0  # holders of each piece; 0: as many as memory allows
    striping: str = "layer"
    plan_delay_s: float = 0.5  # members that join within this time get one plan together
    settle_s: float = 1.0  # from the last ACK to unloading
    max_moves: int = 4  # most pools that load, at once, pieces that others already serve
    following: FollowingRules = field(default_factory=FollowingRules)


class Goals:
    """Plans soon after there is a reason to; until then goals stay.

    When pools come and go, it plans with the weights of the last decision to follow the load, so
    that noise in the counts moves nothing. It adds no copies to even out the load: only
    `following` does, within its limits.
    """

    def __init__(self, rules: PlacementRules):
        self._rules = rules
        self._due_at_s: float | None = None
        self.latest: Plan | None = None
        self.weights: Sequence[Sequence[float]] = ()

    def reconsider(self, at_s: float) -> None:
        """There is a reason to plan, not later than `at_s`."""
        self._due_at_s = at_s if self._due_at_s is None else min(at_s, self._due_at_s)

    def pool_came(self, now_s: float) -> None:
        self.reconsider(now_s + self._rules.plan_delay_s)

    def pool_lost(
        self, lost: Member, others: Iterable[Member], now_s: float, lease_s: float
    ) -> None:
        """A pool is gone without a Leave. It may be back in a moment with all its files, so
        another plan is made at once only if no other pool holds some of its pieces."""
        elsewhere = Pieces.union(pool.ready | (pool.goal or Pieces()) for pool in others)
        dark = lost.ready - elsewhere
        self.reconsider(now_s + (self._rules.plan_delay_s if dark else lease_s))

    def due(self, now_s: float) -> bool:
        """Whether it is time to plan; clears the reason."""
        if self._due_at_s is None or now_s < self._due_at_s:
            return False
        self._due_at_s = None
        return True

    def compute(
        self, model: Model, hosts: Sequence[Host], weights: Sequence[Sequence[float]]
    ) -> Plan:
        """The plan for these hosts; may run on any thread."""
        return self._kept(model, hosts) or self.planner(model)(hosts, weights=weights, copies=False)

    def take(self, made: Plan, hosts: Sequence[Host], pools: Sequence[Member]) -> None:
        """The plan for these hosts becomes the goals of `pools`."""
        self.set(made, pools)
        if (
            hosts
            and self._rules.replicas
            and made.short
            and (not self.latest or made != self.latest)
        ):
            log.warning(
                "%d pieces have fewer than %d holders, %d none: the pools' memory or files do"
                " not allow more",
                len(made.short),
                self._rules.replicas,
                len(made.dark),
            )
        self.latest = made

    def planner(self, model: Model) -> Callable[..., Plan]:
        """`plan` for this model with the operator's rules."""
        return partial(
            plan,
            num_layers=model.num_layers,
            num_experts=model.num_experts,
            replicas=self._rules.replicas,
            striping=self._rules.striping,
        )

    def set(self, made: Plan, pools: Sequence[Member]) -> None:
        """Make a plan the goals of pools."""
        for pool in pools:
            pool.goal = made.hold.get(pool.member_id, pool.goal)

    def _kept(self, model: Model, hosts: Sequence[Host]) -> Plan | None:
        """A first plan that keeps what pools hold, when they already hold enough replicas: an
        earlier router planned it, hot pieces included, from counts that this one does not have."""
        if self.latest or not self._rules.replicas or not self._rules.following.on:
            return None
        if not hosts or not all(host.fixed or host.current for host in hosts):
            return None
        held = Board(hosts, model.num_layers, model.num_experts, self._rules.replicas, ())
        layers = range(model.num_layers)
        if any(held.fewer_than(self._rules.replicas, layer) for layer in layers):
            return None
        hold = {host.pool_id: host.current & host.available for host in hosts}
        return Plan(hold=hold, short=Pieces(), dark=Pieces())


def hosts_of(pools: Sequence[Member]) -> list[Host]:
    """The pools that are planned with, as the planner sees them."""
    speeds = relative_speeds([pool.offer for pool in pools if pool.offer is not None])
    hosts = (_host(pool, speed) for pool, speed in zip(pools, speeds, strict=True))
    return [host for host in hosts if host is not None]


def _host(pool: Member, speed: float) -> Host | None:
    """A pool as the planner sees it; None when it is not to be planned with."""
    offer = pool.offer
    assert offer is not None
    if pool.leaving:
        return None
    if offer.requested:
        wanted = asked_for(pool)
        return Host(pool_id=pool.member_id, available=wanted, current=wanted, fixed=True)
    if pool.status is None:
        return None  # it may hold something already: wait for its first status
    current = pool.goal
    if current is None:
        current = pool.hold if pool.hold is not None else pool.ready
    return Host(
        pool_id=pool.member_id,
        available=offer.available,
        capacity_pieces=offer.capacity_pieces,
        speed=speed,
        current=current,
    )
