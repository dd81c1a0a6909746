"""When is placement planned, and for which pools?

Nothing here waits: one call of `tend` begins a job, a later one takes its outcome.
"""

import asyncio
from concurrent.futures import Executor
from functools import partial

from router_svc.members.member import Member, Model
from router_svc.members.members import Members
from router_svc.placement.activations import Activations
from router_svc.placement.board import Host
from router_svc.placement.following import MIN_WORK, LoadFollower, Proposal
from router_svc.placement.goals import Goals, PlacementRules, hosts_of
from router_svc.placement.jobs import PlanJob, Planning
from router_svc.placement.loads import mean_work, piece_weights
from router_svc.placement.moves import Rebalanced, piece_moves
from router_svc.placement.planner import Plan, imbalance
from rpc.errors import NotReady

PieceWeights = list[list[float]]


class Placing:
    """Sets the pools' goals: soon after pools came or went, and when the load asks for it."""

    def __init__(self, rules: PlacementRules, members: Members, executor: Executor):
        self._rules = rules
        self._members = members
        self.goals = Goals(rules)
        self.activations = Activations(rules.following.half_life_s)
        self.following = LoadFollower(rules.following)
        self.planning = Planning(executor)

    def tend(self, now_s: float) -> None:
        """Take the finished plan and begin the next one that is due. Each may finish at once."""
        model = self._members.model
        if model is None:
            return
        self.planning.collect(self._hosts)
        if not self.planning.busy and self.goals.due(now_s):
            self._plan(now_s, model)
            self.planning.collect(self._hosts)
        if not self.planning.busy and self.following.due(now_s):
            self._look(now_s, model)
            self.planning.collect(self._hosts)

    async def rebalance(self, now_s: float, *, dry_run: bool) -> Rebalanced:
        """Plan from recent counts, without limits on moves; `dry_run`: only report what would move.

        Raises NotReady when pools came or went during the planning.
        """
        model, hosts = self._members.model, self._hosts()
        if model is None or not hosts:
            return Rebalanced()
        work = self.activations.recent_work(now_s)

        def compute() -> tuple[Rebalanced, Plan, PieceWeights]:
            weights = piece_weights(work)
            made = self.goals.planner(model)(hosts, weights=weights)
            done = Rebalanced(
                loaded=made.gained(hosts),
                before=self._imbalance(model, hosts, weights),
                after=made.imbalance,
                moves=piece_moves(hosts, made, weights),
            )
            return done, made, weights

        done, made, weights = await asyncio.wrap_future(self.planning.executor.submit(compute))
        if not dry_run:
            if self._hosts() != hosts:
                raise NotReady("pools joined, left or moved experts during the planning: try again")
            self.goals.weights = weights
            self.goals.set(made, self._pools())
        return done

    def _plan(self, now_s: float, model: Model) -> None:
        hosts = self._hosts()
        self.planning.begin(
            PlanJob(
                hosts=hosts,
                compute=partial(self.goals.compute, model, hosts, self.goals.weights),
                take=lambda made, same: self.goals.take(made, hosts, self._pools(same)),
                again=lambda: self.goals.reconsider(now_s),
            )
        )

    def _look(self, now_s: float, model: Model) -> None:
        """Find out whether pieces should move to even out the load."""
        hosts = self._hosts()
        if not hosts:
            return
        work = self.activations.recent_work(now_s)
        wanted = self._rules.replicas * model.num_layers * model.num_experts
        moving = any(_is_changing(pool) for pool in self._pools())

        def compute() -> tuple[Proposal | None, PieceWeights]:
            weights = piece_weights(work)
            found = self.following.look(
                now_s,
                hosts,
                work=mean_work(work),
                surplus=0 < wanted < sum(len(host.current) for host in hosts),
                largest=model.num_experts if self._rules.striping == "layer" else 1,
                imbalance=lambda: self._imbalance(model, hosts, weights),
                planned=lambda allowance: self.goals.planner(model)(
                    hosts, weights=weights, allowance=allowance
                ),
                moving=moving,
            )
            return found, weights

        def take(outcome: tuple[Proposal | None, PieceWeights], same: set[str]) -> None:
            found, weights = outcome
            if found is not None:
                self.following.follow(found, now_s)
                self.goals.set(found.plan, self._pools(same))
            if found is not None or (not self.goals.weights and mean_work(work) >= MIN_WORK):
                self.goals.weights = weights

        self.planning.begin(PlanJob(hosts=hosts, compute=compute, take=take, again=lambda: None))

    def _pools(self, names: set[str] | None = None) -> list[Member]:
        """All pools, or those with these ids."""
        pools = self._members.of_role("pool")
        return [pool for pool in pools if names is None or pool.member_id in names]

    def _hosts(self) -> list[Host]:
        return hosts_of(self._pools())

    def _imbalance(self, model: Model, hosts: list[Host], weights: PieceWeights) -> float:
        return imbalance(
            hosts,
            num_layers=model.num_layers,
            num_experts=model.num_experts,
            striping=self._rules.striping,
            weights=weights,
        )


def _is_changing(pool: Member) -> bool:
    """Whether a pool is on its way from one goal to the next."""
    if pool.leaving:
        return bool(pool.ready)
    return pool.goal is None or pool.ready != pool.goal
