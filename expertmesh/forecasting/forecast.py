"""Where would a model's experts be placed, and how fast could that be? Nothing is started.

The speed is that of the experts' part: the time to read the activated experts' weights once from
memory, and one round trip per layer. Attention, sampling and prefill are not included.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import Any

from expertmesh.cluster.cluster_plan import POOL_BASE_BYTES
from expertmesh.cluster.sizing import HELD_FACTOR
from moe_model.config import ModelConfig
from moe_model.formats import FORMATS, piece_bytes
from router_svc.placement.board import Host
from router_svc.placement.planner import Plan, plan
from rpc.mesh.pieces import Pieces
from rpc.process.sizes import format_bytes, parse_bytes


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The host of a pool, as given on the command line."""

    name: str
    memory_bytes: int
    bandwidth: int | None = None  # bytes/s at which weights are read

    @classmethod
    def parse(cls, text: str) -> "Machine":
        """NAME:MEMORY[:BANDWIDTH], for example east:192GiB:100GB. Raises ValueError."""
        name, *rest = text.split(":")
        if not name or len(rest) not in (1, 2):
            raise ValueError(
                f"--host: expected NAME:MEMORY[:BANDWIDTH] like east:192GiB:100GB, got {text!r}"
            )
        memory = parse_bytes(rest[0], f"--host {name}: memory")
        if memory is None:
            raise ValueError(f"--host {name}: memory is missing")
        bandwidth = parse_bytes(rest[1], f"--host {name}: bandwidth") if rest[1:] else None
        return cls(name=name, memory_bytes=memory, bandwidth=bandwidth)


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """A placement and what follows from it."""

    config: ModelConfig
    machines: tuple[Machine, ...]
    weight_format: str
    replicas: int
    piece_bytes: int
    plan: Plan
    calls_per_layer: float
    wire_bytes_per_token: int
    batch: int
    tokens_per_s: tuple[float, float]  # at the longest and at the shortest round trip

    def held_bytes(self, machine: Machine) -> int:
        return len(self.plan.hold[machine.name]) * self.piece_bytes

    def problems(self) -> list[str]:
        """What does not fit, and why; empty if everything fits."""
        wanted = self.replicas * self.config.num_pieces
        held = sum(len(hold) for hold in self.plan.hold.values())
        if not self.plan.short:
            return []
        lack = (wanted - held) * self.piece_bytes
        lines = [
            f"{len(self.plan.short):,} of {self.config.num_pieces:,} experts have fewer than "
            f"{self.replicas} holders, {len(self.plan.dark):,} have none: the hosts have room for "
            f"{held:,} of {wanted:,} copies; {format_bytes(int(lack * HELD_FACTOR))} are missing"
        ]
        if self.replicas > len(self.machines):
            lines.append(
                f"{self.replicas} replicas need as many hosts, but there are {len(self.machines)}"
            )
        for other in FORMATS:
            size_bytes = piece_bytes(self.config, other)
            if size_bytes < self.piece_bytes and self._fits(size_bytes):
                lines.append(f"in {other} it would fit")
                break
        return lines

    def _fits(self, size_bytes: int) -> bool:
        room = sum(min(capacity(one, size_bytes), self.config.num_pieces) for one in self.machines)
        return room >= self.replicas * self.config.num_pieces

    def as_json(self) -> dict[str, Any]:
        return {
            "pieces": self.config.num_pieces,
            "piece_bytes": self.piece_bytes,
            "weight_format": self.weight_format,
            "replicas": self.replicas,
            "calls_per_layer": round(self.calls_per_layer, 3),
            "wire_bytes_per_token": self.wire_bytes_per_token,
            "batch": self.batch,
            "tokens_per_s_low": round(self.tokens_per_s[0], 2),
            "tokens_per_s_high": round(self.tokens_per_s[1], 2),
            "short_pieces": len(self.plan.short),
            "dark_pieces": len(self.plan.dark),
            "problems": self.problems(),
            "hosts": [
                {
                    "name": one.name,
                    "memory_bytes": one.memory_bytes,
                    "pieces": len(self.plan.hold[one.name]),
                    "held_bytes": self.held_bytes(one),
                    "hold": {
                        str(layer): list(self.plan.hold[one.name].experts(layer))
                        for layer in self.plan.hold[one.name].layers
                    },
                }
                for one in self.machines
            ],
        }


def capacity(machine: Machine, piece_bytes: int) -> int:
    """How many pieces fit, next to the process's own memory."""
    return max(0, int((machine.memory_bytes - POOL_BASE_BYTES) / (HELD_FACTOR * piece_bytes)))


def forecast(
    config: ModelConfig,
    machines: Sequence[Machine],
    *,
    weight_format: str,
    replicas: int,
    striping: str,
    batch: int,
    round_trip_s: tuple[float, float],
) -> Forecast:
    """Place experts as the router would. Raises ValueError if two hosts have the same name."""
    names = [one.name for one in machines]
    if len(set(names)) < len(names):
        raise ValueError(f"--host: names must differ, got {', '.join(names)}")
    held_bytes = piece_bytes(config, weight_format)
    everything = Pieces.all_of(config.num_layers, config.num_experts)
    hosts = [
        # A host without room has no files available: capacity 0 would mean no limit.
        Host(pool_id=one.name, available=everything if room else Pieces(), capacity_pieces=room)
        for one in machines
        for room in (capacity(one, held_bytes),)
    ]
    made = plan(
        hosts,
        num_layers=config.num_layers,
        num_experts=config.num_experts,
        replicas=replicas,
        striping=striping,
    )
    layers = [_owners(made, layer, config.num_experts) for layer in range(config.num_layers)]
    touched = [sum(_touched(n, config) for n in owners.values()) for owners in layers]
    row_bytes = 2 * config.hidden_size + 8 * config.top_k + 4 + 4 * config.hidden_size
    by_name = {one.name: one for one in machines}
    read_s = sum(_read_s(owners, by_name, config, held_bytes, batch) for owners in layers)
    low, high = round_trip_s
    return Forecast(
        config=config,
        machines=tuple(machines),
        weight_format=weight_format,
        replicas=replicas,
        piece_bytes=held_bytes,
        plan=made,
        calls_per_layer=sum(touched) / len(touched),
        wire_bytes_per_token=int(sum(touched) * row_bytes),
        batch=batch,
        tokens_per_s=(
            batch / (read_s + config.num_layers * high),
            batch / (read_s + config.num_layers * low),
        ),
    )


def _owners(made: Plan, layer: int, num_experts: int) -> dict[str, int]:
    """How many experts of a layer each host serves: the host with most of the rest comes first."""
    left = (1 << num_experts) - 1
    owners: dict[str, int] = {}
    while left:
        masks = {name: hold.masks.get(layer, 0) & left for name, hold in made.hold.items()}
        name = max(sorted(masks), key=lambda one: masks[one].bit_count(), default=None)
        if name is None or not masks[name]:
            break
        owners[name] = masks[name].bit_count()
        left &= ~masks[name]
    return owners


def _touched(num_held: int, config: ModelConfig) -> float:
    """Probability that a token's experts include one of `num_held`, if all are equally likely."""
    others = comb(config.num_experts - num_held, config.top_k)
    return 1 - others / comb(config.num_experts, config.top_k)


def _read_s(
    owners: dict[str, int],
    machines: dict[str, Machine],
    config: ModelConfig,
    piece_bytes: int,
    batch: int,
) -> float:
    """Seconds until the slowest host has read the experts that a step activates in a layer."""
    activated = 1 - (1 - config.top_k / config.num_experts) ** batch
    return max(
        (
            num_held * activated * piece_bytes / bandwidth
            for name, num_held in owners.items()
            if (bandwidth := machines[name].bandwidth) is not None
        ),
        default=0.0,
    )
