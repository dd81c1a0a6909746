"""What happens when a member joins, reports, leaves or falls silent?

Pure (the clock is passed in): connects membership, placement and topology.
The servicer moves frames in and out of it; nothing here waits.
"""

import logging
import math
from concurrent.futures import Executor
from dataclasses import dataclass

from protos import router_pb2
from router_svc.members.crash_loops import CrashLoops
from router_svc.members.epoch import Drains
from router_svc.members.identity import STRANGER, Identity
from router_svc.members.member import LOADING, Member, asked_for
from router_svc.members.members import Members
from router_svc.members.takeover import has_announced, trial_hold
from router_svc.placement.changes import instruct, note_hidden, retire, settle
from router_svc.placement.goals import PlacementRules
from router_svc.placement.jobs import Inline
from router_svc.placement.moves import Rebalanced
from router_svc.placement.placing import Placing
from router_svc.topology_book import TopologyBook
from rpc.errors import NotReady
from rpc.mesh.pieces import Pieces

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Reported:
    """What a status has changed."""

    added_tokens: dict[int, int]  # by layer
    changed: bool  # the topology may look different


class Mesh:
    """The state of the control plane.

    For `adopt_s` after a *re*start, members are only adopted: no pool is told to hold
    anything that it did not ask for or announce, no entry is removed, and watchers that
    hold a topology of an earlier epoch keep it.
    """

    def __init__(
        self,
        *,
        epoch: int,
        restarted: bool,
        lease_s: float,
        adopt_s: float,
        max_members: int,
        checkpoint_id: str,
        now_s: float,
        rules: PlacementRules | None = None,
        drains: Drains | None = None,
        executor: Executor | None = None,
    ):
        """`restarted`: an earlier epoch is known. If not, what members and watchers report may
        still show it.

        `executor` computes plans; without one they are computed in the caller's thread.
        """
        self._drains = drains or Drains(None)
        self.epoch = epoch
        self.lease_s = lease_s
        self.members = Members(
            lease_s=lease_s, max_members=max_members, checkpoint_id=checkpoint_id
        )
        self.book = TopologyBook(epoch=epoch, window_s=lease_s)
        self.rules = rules or PlacementRules()
        self.placing = Placing(self.rules, self.members, executor or Inline())
        self.goals, self.following = self.placing.goals, self.placing.following
        self.activations = self.placing.activations
        self.crash_loops = CrashLoops()
        self._restarted = restarted
        self._adopt_until_s = now_s + adopt_s
        self._swept_at_s = now_s
        self._assignments_made = 0
        # Assignments of a later epoch have higher versions than all earlier ones.
        self._version_base = epoch << 20

    def adopting(self, now_s: float) -> bool:
        return self._restarted and now_s < self._adopt_until_s

    def watcher_seen(self, acked_epoch: int) -> bool:
        """Note what a new watcher holds; True when it comes from an earlier start of the router."""
        stale = 0 < acked_epoch < self.epoch
        self._restarted |= stale
        return stale

    def join(
        self,
        register: router_pb2.Register,
        caller_host: str,
        now_s: float,
        identity: Identity = STRANGER,
    ) -> Member:
        """Admit a process as a member or a successor; raises as `Members.join` does."""
        member = self.members.join(register, caller_host, now_s, identity)
        if not self.members.is_successor(member):
            self._joined(member, now_s)
        return member

    def _joined(self, member: Member, now_s: float) -> None:
        if member.role == "pool":
            member.drained = self._drains.holds(member.member_id, member.incarnation)
            if pause_s := self.crash_loops.joined(member, now_s):
                log.warning(
                    "pool %s keeps crashing: held back for %.0f s unless only it holds some piece",
                    member.member_id,
                    pause_s,
                )
        if member.role == "pool" and asked_for(member):
            member.goal = asked_for(member)
            self.goals.pool_came(now_s)

    def report(self, member: Member, status: router_pb2.MemberStatus, now_s: float) -> Reported:
        """Take a status. Raises ValueError, changing nothing, when it is malformed."""
        model = member.model
        if status.state not in router_pb2.MemberState.values():
            raise ValueError(f"status.state: unknown value {status.state}")
        ready = member.ready
        if status.ready != member.ready_message:
            ready = Pieces.from_message(
                status.ready,
                num_layers=model.num_layers,
                num_experts=model.num_experts,
                field="status.ready",
            )
        waits = self.members.is_successor(member)
        added_tokens = {} if waits else self.activations.add(model, status, now_s)
        # An assignment of an earlier epoch shows that this router was restarted.
        self._restarted |= 0 < status.acked_assignment < self._version_base
        before = (member.state, member.ready)
        first, was_leaving = member.status is None, member.leaving
        member.last_seen_s = now_s
        member.ready = ready
        member.ready_message = status.ready
        member.status = status
        status.state = status.state or LOADING
        status.ClearField("activations")
        if waits:
            return Reported(added_tokens={}, changed=False)
        self._showed(member)
        if member.role == "pool":
            self._pool_reported(member, now_s, first=first, was_leaving=was_leaving)
        return Reported(
            added_tokens=added_tokens, changed=first or before != (member.state, member.ready)
        )

    def dialled(self, member: Member, reason: str) -> None:
        """A member was dialled back; `reason`: why it could not be reached, or empty."""
        member.reachable, member.unreachable_reason = not reason, reason
        if self.members.is_present(member):
            self._showed(member)

    def trial(self, successor: Member) -> router_pb2.Assignment:
        """What a waiting pool has to hold before it may replace the live one of its id."""
        older = self.members.get(successor.key)
        assert older is not None
        successor.hold = trial_hold(older, successor)
        successor.told = (successor.hold, Pieces(), False)
        return self._assignment(successor.hold, Pieces())

    def may_follow(self, successor: Member) -> bool:
        """Whether a successor can be reached and has announced what it was told to hold."""
        older = self.members.get(successor.key)
        if older is None or not self.members.is_successor(successor):
            return False
        return has_announced(older, successor)

    def take_over(self, successor: Member, now_s: float) -> Member | None:
        """Let a successor take its place; returns the member that it replaced, or None when the
        successor may not take over."""
        if not self.may_follow(successor):
            return None
        older = self.members.follow(successor)
        if successor.role == "pool":
            self.crash_loops.ended(older, now_s, said_goodbye=True)
            self._joined(successor, now_s)
            successor.goal = successor.goal or older.goal
            self._pool_reported(successor, now_s, first=True, was_leaving=False)
        self._showed(successor)
        return older

    def _showed(self, member: Member) -> None:
        if not member.has_shown_itself:
            return
        self.members.remember(member)
        if member.role == "pool":
            self._drains.followed(member.member_id, member.incarnation)

    def leave(self, member: Member, now_s: float, *, said_goodbye: bool) -> bool:
        """A member's stream is over; False when a newer stream had replaced it."""
        if not self.members.remove(member):
            return False
        if member.role == "pool":
            self.crash_loops.ended(member, now_s, said_goodbye=said_goodbye)
            if said_goodbye:
                self.book.pool_left(member.member_id)
                self.goals.reconsider(now_s)
            else:
                self.book.pool_vanished(member.member_id, now_s)
                self.goals.pool_lost(member, self.members.of_role("pool"), now_s, self.lease_s)
        return True

    def sweep(self, now_s: float) -> list[Member]:
        """Remove and return the members whose lease has run out.

        Call it several times per lease. When a call comes much too late, the router itself
        was stopped, and that time does not count against the members.
        """
        stalled_s = now_s - self._swept_at_s
        self._swept_at_s = now_s
        if stalled_s > self.lease_s / 2:
            log.warning("the router itself was stopped for %.1f s", stalled_s)
            for member in self.members:
                member.last_seen_s = min(now_s, member.last_seen_s + stalled_s)
        silent = self.members.silent(now_s)
        for member in silent:
            self.leave(member, now_s, said_goodbye=False)
        return silent

    def _pool_reported(self, pool: Member, now_s: float, *, first: bool, was_leaving: bool) -> None:
        assert pool.status is not None
        self.crash_loops.reported(pool, now_s)
        if pool.status.acked_assignment >= pool.unloading_version:
            pool.unloading = Pieces()
        if first:
            self.goals.pool_came(now_s)
        if pool.leaving and not was_leaving:
            self.goals.reconsider(now_s)

    def drain(self, pool: Member, now_s: float, *, undo: bool = False) -> None:
        """Empty a pool for an operator: others take over, then it is told to hold nothing."""
        pool.drained = not undo
        self._drains.set(pool.member_id, pool.incarnation, drained=pool.drained)
        self.goals.reconsider(now_s)

    async def rebalance(self, now_s: float, *, dry_run: bool = False) -> Rebalanced:
        """Plan from recent counts, without the limits of load following; `dry_run`: only report
        what would move.

        Raises NotReady while the router only adopts members or still shows pools that vanished,
        and when pools came or went during the planning.
        """
        if self.adopting(now_s) or self.book.kept_pools:
            raise NotReady("the router has just restarted or pools are missing: try again later")
        return await self.placing.rebalance(now_s, dry_run=dry_run)

    def new_assignments(
        self, now_s: float, acked: float = math.inf
    ) -> list[tuple[Member, router_pb2.Assignment]]:
        """The assignments to send now.

        `acked`: the version that every attention service has ACKed; infinite without any service.
        """
        pools = self.members.of_role("pool")
        self.crash_loops.hold_back(pools, now_s)
        if not self.adopting(now_s) and not self.book.kept_pools:
            self.placing.tend(now_s)
            retire(pools, called=not math.isinf(acked))
            settle(pools, acked, now_s, self.rules.settle_s)
        made = []
        for pool, hold, only_here in instruct(pools, self.rules, now_s):
            assignment = self._assignment(hold, only_here)
            if dropped := pool.ready - hold:
                pool.unloading = pool.unloading | dropped
                pool.unloading_version = assignment.version
                pool.retired |= dropped
            made.append((pool, assignment))
        return made

    def _assignment(self, hold: Pieces, only_here: Pieces) -> router_pb2.Assignment:
        self._assignments_made += 1
        return router_pb2.Assignment(
            version=self._version_base + self._assignments_made,
            hold=hold.to_message(),
            only_here=only_here.to_message(),
        )

    def publish(self, now_s: float) -> router_pb2.Topology | None:
        """The next topology, or None when it would equal the last one."""
        topology = self.book.publish(
            self.members.model,
            self.members.of_role("pool"),
            self.members.of_role("attention"),
            now_s=now_s,
            removing=not self.adopting(now_s),
        )
        if self.book.latest is not None:
            note_hidden(
                self.members.of_role("pool"), self.book.shown, self.book.latest.version.counter
            )
        if not self.members and not self.book.kept_pools:
            self.members.forget_model()
            self.book.forget_lost()
        return topology
