"""Who is a member of the mesh?

Pure (the clocks are passed in): leases, fencing by incarnation, agreement on the
checkpoint. A member is one stream of one process. A new stream of the same process
replaces it at once. Another process with the same id waits as its successor if the
connection proves that it may be that member, and is refused otherwise.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator

from protos import router_pb2
from router_svc.members.identity import STRANGER, Identity
from router_svc.members.member import Member, MemberKey, Model, read_register
from router_svc.members.takeover import is_same_process
from rpc.config import PROTOCOL_MAJOR
from rpc.errors import Forbidden, Mismatch, NotReady, Overloaded

MAX_FENCES = 4096
"""How many ids have their highest incarnation remembered, also after they left."""
MAX_AHEAD_S = 600.0
"""An incarnation is the host's clock at the start; one this far ahead of our clock is refused."""


def wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


class Members:
    """The members by (role, id), each with one stream."""

    def __init__(
        self,
        *,
        lease_s: float,
        max_members: int,
        checkpoint_id: str = "",
        wall_ms: Callable[[], int] = wall_clock_ms,
        max_ahead_s: float = MAX_AHEAD_S,
    ):
        self._lease_s = lease_s
        self._wall_ms = wall_ms
        self._max_ahead_s = max_ahead_s
        self._max_members = max_members
        self._fixed_checkpoint_id = checkpoint_id
        self._members: dict[MemberKey, Member] = {}
        self._successors: dict[MemberKey, Member] = {}
        self._fences: OrderedDict[MemberKey, int] = OrderedDict()
        self.model: Model | None = None

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Member]:
        """A snapshot, safe to read from other threads."""
        return iter(tuple(self._members.values()))

    def get(self, key: MemberKey) -> Member | None:
        return self._members.get(key)

    def of_role(self, role: str) -> list[Member]:
        """Ascending by id."""
        return sorted((m for m in self if m.role == role), key=lambda member: member.member_id)

    def join(
        self,
        register: router_pb2.Register,
        caller_host: str,
        now_s: float,
        identity: Identity = STRANGER,
    ) -> Member:
        """Admit a process as a member, or as the successor of a live one.

        Nothing changes unless the process is admitted.

        Raises:
            ValueError: the Register is malformed.
            Forbidden: the certificate is another member's.
            Mismatch: another checkpoint or protocol, or a newer incarnation exists.
            NotReady: a live member has the id and nothing proves that this is the same one, or
                the clocks differ too much.
            Overloaded: the mesh is full.
        """
        if register.protocol_major != PROTOCOL_MAJOR:
            raise Mismatch(
                f"protocol major {register.protocol_major} is not this router's {PROTOCOL_MAJOR}"
            )
        member = read_register(register, caller_host, now_s)
        if not identity.may_be(member.member_id):
            named = ", ".join(sorted(identity.member_ids))
            raise Forbidden(f"the certificate is for {named}, not for {member.member_id!r}")
        self._check_model(member)
        key = member.key
        older = self._members.get(key)
        now_ms = self._wall_ms()
        member.age_ms = self._age_ms(member, now_ms)
        newest = max(self._fences.get(key, 0), older.age_ms if older is not None else 0)
        if member.age_ms < min(newest, now_ms):  # now_ms: our clock may have been set back
            raise Mismatch(
                f"fenced: {member.role} {register.member_id!r} has a newer incarnation {newest}, "
                f"this is {register.incarnation}"
            )
        if older is None:
            if len(self._members) >= self._max_members:
                raise Overloaded(f"the mesh is full: {self._max_members} members")
        elif is_same_process(older, member):
            member.carry_over(older)
        elif identity.is_sure_to_be(member.member_id):
            self._successors[key] = member
            return member
        else:
            raise NotReady(
                f"{member.role} {member.member_id!r} is a live member, last heard from "
                f"{max(0.0, now_s - older.last_seen_s):.1f} s ago: the id becomes free when it"
                f" leaves or has been silent for {self._lease_s:g} s"
            )
        self.model = member.model
        self._members[key] = member
        return member

    def is_present(self, member: Member) -> bool:
        """Whether this stream, and no newer one, is the member of its id."""
        return self._members.get(member.key) is member

    def is_successor(self, member: Member) -> bool:
        """Whether this stream waits for the place of a live member."""
        return self._successors.get(member.key) is member

    def follow(self, successor: Member) -> Member:
        """Let a successor take its place; returns the member that had it."""
        older = self._members[successor.key]
        del self._successors[successor.key]
        self._members[successor.key] = successor
        self.remember(successor)
        return older

    def remember(self, member: Member) -> None:
        """Fence older processes of its id from now on: it has shown itself."""
        key = member.key
        self._fences[key] = max(member.age_ms, self._fences.get(key, 0))
        self._fences.move_to_end(key)
        if len(self._fences) > MAX_FENCES:
            departed = next((old for old in self._fences if old not in self._members), None)
            if departed is not None:
                del self._fences[departed]

    def remove(self, member: Member) -> bool:
        """Remove a member or successor; whether this freed the id."""
        if self.is_successor(member):
            del self._successors[member.key]
        if not self.is_present(member):
            return False
        del self._members[member.key]
        return True

    def forget_model(self) -> None:
        """The mesh is empty: the next member may bring another checkpoint."""
        assert not self._members
        self.model = None

    def silent(self, now_s: float) -> list[Member]:
        """Members and successors whose lease has run out."""
        everybody = (*self, *self._successors.values())
        return [member for member in everybody if now_s - member.last_seen_s > self._lease_s]

    def _age_ms(self, member: Member, now_ms: int) -> int:
        """Its incarnation, but at most our clock: a forged one must not lock the id.

        Raises NotReady when it is too far ahead: one of the clocks is wrong.
        """
        ahead_s = (member.incarnation - now_ms) / 1000
        if ahead_s > self._max_ahead_s:
            raise NotReady(
                f"register.incarnation: {member.incarnation} ms is {ahead_s:.3g} s ahead of this"
                f" router's clock, at most {self._max_ahead_s:g} s are allowed: set the clocks"
            )
        return min(member.incarnation, now_ms)

    def _check_model(self, member: Member) -> None:
        model, member_id = member.model, member.member_id
        required = self.model.checkpoint_id if self.model else self._fixed_checkpoint_id
        if required and model.checkpoint_id != required:
            raise Mismatch(
                f"checkpoint_id {model.checkpoint_id} of {member_id} is not the mesh's {required}"
            )
        if self.model is not None and model != self.model:
            raise Mismatch(
                f"{member_id} has {model.num_layers} layers of {model.num_experts} experts, the"
                f" mesh has {self.model.num_layers} of {self.model.num_experts}"
            )
