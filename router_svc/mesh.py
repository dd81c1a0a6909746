"""What happens when a member joins, reports, leaves or falls silent?

Pure (the clock is passed in): joins membership, placement and topology together.
The servicer moves frames in and out of it; nothing here waits.
"""

import logging
from dataclasses import dataclass

from protos import router_pb2
from router_svc.activations import Activations
from router_svc.member import DRAINING, LOADING, Member
from router_svc.membership import Members
from router_svc.placement import Replicas, assign
from router_svc.topology import TopologyBook
from rpc.pieces import Pieces

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Reported:
    """What a status brought."""

    added_tokens: dict[int, int]  # by layer
    changed: bool  # the topology may look different


class Mesh:
    """The state of the control plane.

    For `adopt_s` after a *re*start members are only adopted: no pool is given
    anything it did not ask for or announce, no entry is removed, and watchers that
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
    ):
        """`restarted`: an earlier epoch is known. Members and watchers may still prove it."""
        self.epoch = epoch
        self.lease_s = lease_s
        self.members = Members(
            lease_s=lease_s, max_members=max_members, checkpoint_id=checkpoint_id
        )
        self.book = TopologyBook(epoch=epoch, window_s=lease_s)
        self.activations = Activations()
        self._restarted = restarted
        self._adopt_until_s = now_s + adopt_s
        self._swept_at_s = now_s
        self._unassigned: list[Member] = []
        self._assignments_made = 0
        # Assignments of a later epoch have higher versions than all earlier ones.
        self._version_base = epoch << 20

    def adopting(self, now_s: float) -> bool:
        return self._restarted and now_s < self._adopt_until_s

    def watcher_seen(self, acked_epoch: int) -> bool:
        """Note what a new watcher holds; True when it is of an earlier router."""
        stale = 0 < acked_epoch < self.epoch
        self._restarted |= stale
        return stale

    def join(self, register: router_pb2.Register, caller_host: str, now_s: float) -> Member:
        """Admit a process; raises as `Members.join` does."""
        member = self.members.join(register, caller_host, now_s)
        if member.role == "pool":
            self._unassigned.append(member)
        return member

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
        added_tokens = self.activations.add(model, status)
        # An assignment of an earlier epoch proves that this router is a restarted one.
        self._restarted |= 0 < status.acked_assignment < self._version_base
        before = (member.state, member.ready)
        first = member.status is None
        member.last_seen_s = now_s
        member.ready = ready
        member.ready_message = status.ready
        member.status = status
        status.state = status.state or LOADING
        status.ClearField("activations")
        return Reported(
            added_tokens=added_tokens, changed=first or before != (member.state, member.ready)
        )

    def leave(self, member: Member, now_s: float, *, said_goodbye: bool) -> bool:
        """A member's stream is over; False when a newer stream had replaced it."""
        if not self.members.remove(member):
            return False
        if member.role == "pool":
            if said_goodbye:
                self.book.pool_left(member.member_id)
            else:
                self.book.pool_vanished(member.member_id, now_s)
        return True

    def sweep(self, now_s: float) -> list[Member]:
        """Remove and return the members whose lease has run out.

        Call it several times per lease: when a call comes much too late the router
        itself was stopped, and nobody is blamed for that time.
        """
        stalled_s = now_s - self._swept_at_s
        self._swept_at_s = now_s
        if stalled_s > self.lease_s / 2:
            log.warning("the router itself stood still for %.1f s", stalled_s)
            for member in self.members:
                member.last_seen_s = min(now_s, member.last_seen_s + stalled_s)
        silent = self.members.silent(now_s)
        for member in silent:
            self.leave(member, now_s, said_goodbye=False)
        return silent

    def new_assignments(self, now_s: float) -> list[tuple[Member, router_pb2.Assignment]]:
        """Assignments for pools that have none on their present stream and can have one now."""
        present = [pool for pool in self._unassigned if self.members.is_present(pool)]
        due = [pool for pool in present if self._assignable(pool, now_s)]
        self._unassigned = [pool for pool in present if not self._assignable(pool, now_s)]
        if not due:
            return []
        replicas = Replicas(
            pool.ready if pool.hold is None else pool.hold
            for pool in self.members.of_role("pool")
            if pool.state != DRAINING
        )
        made = []
        for pool in due:
            assert pool.offer is not None
            pool.hold = assign(pool.offer, held=pool.ready, replicas=replicas)
            replicas.add(pool.hold - pool.ready)
            self._assignments_made += 1
            version = self._version_base + self._assignments_made
            made.append((pool, router_pb2.Assignment(version=version, hold=pool.hold.to_message())))
        return made

    def _assignable(self, pool: Member, now_s: float) -> bool:
        """A pool that asked: at once. Another: once it has said what it serves already."""
        assert pool.offer is not None
        return bool(pool.offer.requested) or (pool.status is not None and not self.adopting(now_s))

    def publish(self, now_s: float) -> router_pb2.Topology | None:
        """The next topology, or None when it would say what the last one says."""
        topology = self.book.publish(
            self.members.model,
            self.members.of_role("pool"),
            self.members.of_role("attention"),
            now_s=now_s,
            removing=not self.adopting(now_s),
        )
        if not self.members and not self.book.kept_pools:
            self.members.forget_model()
            self.book.forget_lost()
        return topology
