"""Which flags does the router take, and what is allowed?"""

from dataclasses import dataclass
from pathlib import Path

from router_svc.members.addresses import AddressRules
from router_svc.placement.board import MAX_REPLICAS
from router_svc.placement.following import FollowingRules
from router_svc.placement.goals import PlacementRules
from router_svc.placement.planner import STRIPINGS
from rpc.process.flags import flag
from rpc.process.service_config import ServiceConfig, check_choice


@dataclass(frozen=True, kw_only=True)
class RouterConfig(ServiceConfig):
    """Flags of `python -m router_svc`. Raises ValueError naming the flag and what is allowed."""

    listen: str = flag("127.0.0.1:50050", "where gRPC listens", metavar="HOST:PORT")
    ops_listen: str = flag(
        "127.0.0.1:50060",
        "HTTP for /metrics, /livez, /readyz, /sd, /experts/load",
        metavar="HOST:PORT",
    )
    state: Path | None = flag(
        None,
        "file that keeps the epoch between starts (without it the clock gives one); drained"
        " pools are kept in a second file beside it",
    )
    checkpoint_id: str = flag("", "the only checkpoint_id admitted; empty: the first member's")
    lease_ms: int = flag(5000, "a member silent for longer than this is removed")
    adopt_ms: int = flag(
        10_000, "after a restart, how long members are only adopted before anything is removed"
    )
    replicas: int = flag(0, "holders of each piece; 0: as many as the pools' memory allows")
    striping: str = flag("layer", f"how pieces are spread: {', '.join(STRIPINGS)}")
    plan_delay_ms: int = flag(500, "pools that join within this time get one plan together")
    settle_ms: int = flag(
        1000, "how long after the last ACK of a topology pools unload what it no longer shows"
    )
    max_moves: int = flag(4, "most pools that load, at once, pieces that others already serve")
    follow_load: bool = flag(
        True, "replicate hot experts and pack pools by load while requests run (needs --replicas)"
    )
    half_life_s: float = flag(300.0, "after this time an activation counts half")
    imbalance: float = flag(
        1.2, "work of the busiest pool over the mean above which pieces are moved"
    )
    imbalance_s: float = flag(30.0, "how long it has to stay above that before anything moves")
    min_gain: float = flag(
        0.05, "least share of the busiest pool's work that a move has to take away"
    )
    pieces_per_minute: int = flag(64, "most pieces a minute that are loaded to even out the load")
    member_network: tuple[str, ...] = flag(
        (),
        "network that members may advertise addresses in, besides the address they call from",
        metavar="NETWORK",
    )
    max_members: int = flag(1000, "most members, and most watchers, at once")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value, low, high in (
            ("--lease-ms", self.lease_ms, 200, 600_000),
            ("--adopt-ms", self.adopt_ms, 0, 600_000),
            ("--replicas", self.replicas, 0, MAX_REPLICAS),
            ("--plan-delay-ms", self.plan_delay_ms, 0, 60_000),
            ("--settle-ms", self.settle_ms, 0, 600_000),
            ("--max-moves", self.max_moves, 1, 1000),
            ("--half-life-s", self.half_life_s, 1, 86_400),
            ("--imbalance", self.imbalance, 1, 100),
            ("--imbalance-s", self.imbalance_s, 0, 86_400),
            ("--min-gain", self.min_gain, 0, 1),
            ("--pieces-per-minute", self.pieces_per_minute, 1, 1_000_000),
            ("--max-members", self.max_members, 1, 1000),
        ):
            if not low <= value <= high:
                raise ValueError(f"{name}: allowed are {low} to {high}, got {value}")
        check_choice("--striping", self.striping, STRIPINGS)
        AddressRules(self.member_network)

    @property
    def address_rules(self) -> AddressRules:
        return AddressRules(self.member_network)

    @property
    def placement(self) -> PlacementRules:
        """The rules of placement that the flags give."""
        return PlacementRules(
            replicas=self.replicas,
            striping=self.striping,
            plan_delay_s=self.plan_delay_ms / 1000,
            settle_s=self.settle_ms / 1000,
            max_moves=self.max_moves,
            following=FollowingRules(
                on=self.follow_load,
                half_life_s=self.half_life_s,
                imbalance=self.imbalance,
                imbalance_s=self.imbalance_s,
                min_gain=self.min_gain,
                pieces_per_minute=self.pieces_per_minute,
            ),
        )
