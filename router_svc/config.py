"""Which flags does the router take, and what is allowed?"""

from dataclasses import dataclass
from pathlib import Path

from router_svc.board import MAX_REPLICAS
from router_svc.goals import PlacementRules
from router_svc.planner import STRIPINGS
from rpc.flags import flag
from rpc.service_config import ServiceConfig, check_choice


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
        None, "file that keeps the epoch between starts; without it the clock gives one"
    )
    checkpoint_id: str = flag("", "the only checkpoint_id admitted; empty: the first member's")
    lease_ms: int = flag(5000, "a member silent for longer than this is removed")
    adopt_ms: int = flag(
        10_000, "after a restart, how long members are only adopted before anything is removed"
    )
    replicas: int = flag(0, "holders of each piece; 0: as many as the pools' memory allows")
    striping: str = flag("layer", f"how pieces are spread: {', '.join(STRIPINGS)}")
    plan_delay_ms: int = flag(500, "pools that join within this time are planned together")
    settle_ms: int = flag(
        1000, "from the last ACK of a topology until what it no longer shows is unloaded"
    )
    max_moves: int = flag(4, "most pools that load at once what others serve already")
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
            ("--max-members", self.max_members, 1, 1000),
        ):
            if not low <= value <= high:
                raise ValueError(f"{name}: allowed are {low} to {high}, got {value}")
        check_choice("--striping", self.striping, STRIPINGS)

    @property
    def placement(self) -> PlacementRules:
        """What the flags say about who holds what."""
        return PlacementRules(
            replicas=self.replicas,
            striping=self.striping,
            plan_delay_s=self.plan_delay_ms / 1000,
            settle_s=self.settle_ms / 1000,
            max_moves=self.max_moves,
        )
