"""What does the router know about one member, and is its Register well-formed?"""

from dataclasses import dataclass, field

from protos import pieces_pb2, router_pb2
from router_svc.members.addresses import advertised
from rpc.config import Address
from rpc.mesh.pieces import Pieces

MAX_NAME_LENGTH = 128
SPEEDS = 0.00099, 1000.0
EXPERTS_PER_S = 0.00099, 1e9
"""Lowest and highest value accepted; the lowest is below the flag's 0.001, which float32 rounds."""

ROLE_NAMES = {
    router_pb2.MEMBER_ROLE_POOL: "pool",
    router_pb2.MEMBER_ROLE_ATTENTION: "attention",
}
LOADING = router_pb2.MEMBER_STATE_LOADING
READY = router_pb2.MEMBER_STATE_READY
DRAINING = router_pb2.MEMBER_STATE_DRAINING

MemberKey = tuple[str, str]
"""(role name, member id)."""


@dataclass(frozen=True)
class Model:
    """What all members agree on."""

    checkpoint_id: str
    num_layers: int
    num_experts: int  # per layer


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What a pool can hold."""

    available: Pieces  # loadable from its checkpoint
    requested: Pieces  # asked for by its flags; empty: the router decides
    capacity_pieces: int  # 0: no limit
    experts_per_s: float = 0.0  # 0: not known
    speed: float = 1.0  # without experts_per_s: relative to the median of the others


@dataclass
class Hidden:
    """Pieces that a pool holds and the topology does not show there since a version."""

    pieces: Pieces
    counter: int
    settled_at_s: float | None = None  # when calls to them have ended; None: not all have ACKed


@dataclass(kw_only=True, eq=False)
class Member:
    """What the router knows about one process that joined."""

    role: str
    member_id: str
    incarnation: int
    address: Address
    metrics_address: Address | None
    numerics_id: str
    model: Model
    offer: Offer | None  # pools only
    last_seen_s: float
    process_key: bytes = b""  # known to this process only
    age_ms: int = 0  # its incarnation, or the router's clock when that was behind it; see `Members`
    status: router_pb2.MemberStatus | None = None
    ready: Pieces = field(default_factory=Pieces)
    ready_message: pieces_pb2.PieceSet = field(default_factory=pieces_pb2.PieceSet)
    reachable: bool = False
    unreachable_reason: str = "not dialled back yet"
    # What placement has decided, for pools; see `goals` and `changes`.
    goal: Pieces | None = None  # what it should hold in the end; None before the first plan
    hold: Pieces | None = None  # what it was last told to hold; None before
    told: tuple[Pieces, Pieces, bool] | None = None  # on this stream: hold, only here, leaving
    retired: Pieces = field(default_factory=Pieces)  # held, but no longer shown
    hidden: list[Hidden] = field(default_factory=list)
    unloading: Pieces = field(default_factory=Pieces)  # told to unload, not yet confirmed
    unloading_version: int = 0
    drained: bool = False  # an operator wants it to leave
    held_back: bool = False  # see `crash_loops`

    @property
    def key(self) -> MemberKey:
        return self.role, self.member_id

    @property
    def state(self) -> "router_pb2.MemberState":
        """As the topology shows it: a member that is unreachable or held back is not ready."""
        if self.status is None or not self.reachable:
            return LOADING
        if self.held_back and self.status.state == READY:
            return LOADING
        if self.drained and self.status.state == READY:
            return DRAINING
        return self.status.state

    @property
    def has_shown_itself(self) -> bool:
        """Whether it was reached at its address and has reported that it is ready."""
        return self.reachable and self.status is not None and self.status.state == READY

    @property
    def leaving(self) -> bool:
        """Whether other pools should take over what it holds."""
        return self.drained or (self.status is not None and self.status.state == DRAINING)

    @property
    def unready_reason(self) -> str:
        """Why the member does not count as ready; empty when it does."""
        if not self.reachable:
            return self.unreachable_reason
        if self.state == DRAINING:
            return "draining"
        if self.held_back:
            return "held back: its last processes ended soon after they were ready"
        return "" if self.state == READY else "loading"

    def carry_over(self, older: "Member") -> None:
        """Copy the state of the process's earlier stream, so that it is not shown as loading."""
        if older.incarnation != self.incarnation or older.address != self.address:
            return
        self.reachable, self.unreachable_reason = older.reachable, older.unreachable_reason
        self.status = older.status
        self.ready, self.ready_message = older.ready, older.ready_message
        self.goal, self.hold, self.drained = older.goal, older.hold, older.drained
        self.retired, self.hidden = older.retired, older.hidden
        self.unloading, self.unloading_version = older.unloading, older.unloading_version


def read_register(register: router_pb2.Register, caller_host: str, now_s: float) -> Member:
    """The member a Register describes. Raises ValueError naming the bad field."""
    role = ROLE_NAMES.get(register.role)
    if role is None:
        raise ValueError("register.role: expected POOL or ATTENTION")
    _check_name(register.member_id, "register.member_id")
    _check_name(register.checkpoint_id, "register.checkpoint_id")
    metrics_address = None
    if register.metrics_address:
        metrics_address = advertised(
            register.metrics_address, caller_host, "register.metrics_address"
        )
    if len(register.numerics_id) > MAX_NAME_LENGTH or not register.numerics_id.isprintable():
        raise ValueError(
            f"register.numerics_id: expected at most {MAX_NAME_LENGTH} printable characters"
        )
    if len(register.process_key) > MAX_NAME_LENGTH:
        raise ValueError(f"register.process_key: at most {MAX_NAME_LENGTH} bytes")
    # Refuses sizes that no model has, also from attention services, which offer no pieces.
    Pieces().missing(register.num_layers, register.num_experts)
    return Member(
        role=role,
        member_id=register.member_id,
        incarnation=register.incarnation,
        address=advertised(register.address, caller_host, "register.address"),
        metrics_address=metrics_address,
        numerics_id=register.numerics_id,
        model=Model(register.checkpoint_id, register.num_layers, register.num_experts),
        offer=_offer_from(register) if role == "pool" else None,
        last_seen_s=now_s,
        process_key=register.process_key,
    )


def _offer_from(register: router_pb2.Register) -> Offer:
    sizes = {"num_layers": register.num_layers, "num_experts": register.num_experts}
    offer = register.offer
    return Offer(
        available=Pieces.from_message(offer.available, **sizes, field="offer.available"),
        requested=Pieces.from_message(offer.requested, **sizes, field="offer.requested"),
        capacity_pieces=offer.capacity_pieces,
        experts_per_s=_within(offer.experts_per_s, "offer.experts_per_s", *EXPERTS_PER_S),
        speed=_within(offer.speed, "offer.speed", *SPEEDS) or 1.0,
    )


def _within(value: float, field_name: str, low: float, high: float) -> float:
    """The value, if it is 0 (not known) or within the bounds. Raises ValueError otherwise."""
    if value != 0 and not low <= value <= high:
        raise ValueError(f"{field_name}: allowed are {low:g} to {high:g}, got {value}")
    return value


def _check_name(text: str, what: str) -> None:
    fits = 0 < len(text) <= MAX_NAME_LENGTH
    if not fits or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(
            f"{what}: expected 1 to {MAX_NAME_LENGTH} printable ASCII characters without spaces,"
            f" got {text[:40]!r}"
        )


def asked_for(pool: Member) -> Pieces:
    """The pieces that a pool's flags ask for, as far as it can hold them."""
    assert pool.offer is not None
    offer = pool.offer
    wanted = offer.requested & offer.available
    return wanted.first(offer.capacity_pieces or len(wanted))
