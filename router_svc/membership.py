"""Who is a member of the mesh?

Pure (the clock is passed in): leases, fencing by incarnation, agreement on the
checkpoint. A member is one stream of one process; a newer stream of the same id
takes its place.
"""

from collections import OrderedDict
from collections.abc import Iterator

from protos import router_pb2
from router_svc.member import Member, MemberKey, Model, read_register
from rpc.config import PROTOCOL_MAJOR
from rpc.errors import Mismatch, Overloaded

MAX_FENCES = 4096
"""Ids whose highest incarnation is remembered, departed members included."""


class Members:
    """The members by (role, id); at most one stream for each."""

    def __init__(self, *, lease_s: float, max_members: int, checkpoint_id: str = ""):
        self._lease_s = lease_s
        self._max_members = max_members
        self._fixed_checkpoint_id = checkpoint_id
        self._members: dict[MemberKey, Member] = {}
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

    def join(self, register: router_pb2.Register, caller_host: str, now_s: float) -> Member:
        """Admit a process; an older stream of the same id is no longer a member.

        Raises ValueError on a malformed Register, Mismatch on another checkpoint,
        protocol or a newer incarnation, Overloaded when the mesh is full. Nothing
        changes unless the member is admitted.
        """
        if register.protocol_major != PROTOCOL_MAJOR:
            raise Mismatch(
                f"protocol major {register.protocol_major} of {register.member_id}"
                f" is not this router's {PROTOCOL_MAJOR}"
            )
        member = read_register(register, caller_host, now_s)
        self._check_model(member)
        key = member.key
        newest = self._fences.get(key, 0)
        if register.incarnation < newest:
            raise Mismatch(
                f"fenced: {member.role} {register.member_id!r} has a newer incarnation {newest}, "
                f"this is {register.incarnation}"
            )
        older = self._members.get(key)
        if older is None and len(self._members) >= self._max_members:
            raise Overloaded(f"the mesh is full: {self._max_members} members")
        if older is not None:
            member.carry_over(older)
        self.model = member.model
        self._members[key] = member
        self._remember(key, register.incarnation)
        return member

    def is_present(self, member: Member) -> bool:
        """Whether this very stream is still the member of its id."""
        return self._members.get(member.key) is member

    def remove(self, member: Member) -> bool:
        """Forget a member; False when a newer stream has taken its place already."""
        if not self.is_present(member):
            return False
        del self._members[member.key]
        return True

    def forget_model(self) -> None:
        """An empty mesh may be founded anew by a member with another checkpoint."""
        assert not self._members
        self.model = None

    def silent(self, now_s: float) -> list[Member]:
        """Members whose lease has run out."""
        return [member for member in self if now_s - member.last_seen_s > self._lease_s]

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

    def _remember(self, key: MemberKey, incarnation: int) -> None:
        self._fences[key] = incarnation
        self._fences.move_to_end(key)
        if len(self._fences) > MAX_FENCES:
            departed = next((old for old in self._fences if old not in self._members), None)
            if departed is not None:
                del self._fences[departed]
