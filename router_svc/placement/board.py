"""What does each pool hold while a plan is made? Bitmasks per pool and layer, room and load.

Pure bookkeeping for `planner`: every change goes through `give` and `take`, so that
holders, room and load always agree.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rpc.mesh.pieces import Pieces, bits, lowest_bits

MAX_REPLICAS = 16
"""More holders of a piece than this are not planned, however much memory there is."""


@dataclass(frozen=True, kw_only=True)
class Host:
    """One pool, as the planner sees it."""

    pool_id: str
    available: Pieces  # loadable from its checkpoint
    capacity_pieces: int = 0  # what its memory holds; 0: no limit
    speed: float = 1.0  # relative: 2.0 gets twice the load
    current: Pieces = field(default_factory=Pieces)  # held, or being loaded
    fixed: bool = False  # asked for `current` by its flags: holds exactly that

    def __post_init__(self) -> None:
        if not self.speed > 0:
            raise ValueError(f"speed of {self.pool_id}: must be above 0, got {self.speed}")


class Board:
    """The state of a plan in the making. Hosts are indexed in ascending pool id."""

    def __init__(
        self,
        hosts: Sequence[Host],
        num_layers: int,
        num_experts: int,
        replicas: int,
        weights: Sequence[Sequence[float]],
        allowance: float = math.inf,
    ):
        """`replicas` 0: as many holders as fit. `weights` [layer][expert] may be empty.

        `allowance`: how many pieces may be loaded only to even out the load.
        """
        self.hosts = sorted(hosts, key=lambda host: host.pool_id)
        self.num_layers, self.num_experts = num_layers, num_experts
        self.full = (1 << num_experts) - 1
        self.movable = [index for index, host in enumerate(self.hosts) if not host.fixed]
        self.can: list[list[int]] = []  # [host][layer]
        self.held: list[list[int]] = []
        self.room: list[int] = []
        for host in self.hosts:
            kept = host.current & host.available
            capacity = host.capacity_pieces or len(host.available)
            if host.fixed:
                can, capacity = kept, len(kept)
            else:
                can, kept = host.available, kept.first(capacity)
            self.can.append([can.masks.get(layer, 0) for layer in range(num_layers)])
            self.held.append([kept.masks.get(layer, 0) for layer in range(num_layers)])
            self.room.append(capacity - len(kept))
        self.quota = [
            -(-(room + sum(mask.bit_count() for mask in held)) // num_layers)
            for room, held in zip(self.room, self.held, strict=True)
        ]
        self.replicas = min(replicas or MAX_REPLICAS, MAX_REPLICAS, len(self.hosts))
        self.allowance = allowance
        self._weights = weights
        able = [self._count(layer, self.can) for layer in range(num_layers)]
        self._share([[min(self.replicas, count) for count in row] for row in able])

    def _share(self, holders: Sequence[Sequence[int]]) -> None:
        """Divide each piece's load by its number of holders, [layer][expert]."""
        self._shares = [
            [
                weight / max(1, count)
                for weight, count in zip(self._weight_row(layer), row, strict=True)
            ]
            for layer, row in enumerate(holders)
        ]
        self._known_weights: list[dict[int, float]] = [{} for _ in holders]
        self._loads = [
            [self.weight(layer, mask) for layer, mask in enumerate(held)] for held in self.held
        ]
        self._totals = [sum(loads) for loads in self._loads]

    def _weight_row(self, layer: int) -> Sequence[float]:
        return self._weights[layer] if self._weights else [1.0] * self.num_experts

    def _count(self, layer: int, masks: Sequence[Sequence[int]]) -> list[int]:
        """How many hosts have each expert of a layer in their mask."""
        counts = [0] * self.num_experts
        # Most pools have equal masks, which are counted together.
        for mask, hosts in Counter(of_host[layer] for of_host in masks).items():
            for expert in bits(mask):
                counts[expert] += hosts
        return counts

    def holders(self, layer: int) -> list[int]:
        """How many hold each expert of a layer."""
        return self._count(layer, self.held)

    def share_out(self) -> None:
        """From now on, divide a piece's load among the holders that it has instead of those that
        it can have."""
        self._share([self.holders(layer) for layer in range(self.num_layers)])

    def imbalance(self, by_layer: bool) -> float:
        """The busiest pool's work over an even share of all work; 1 is even.

        `by_layer`: each pool holds whole layers, and pools work on different layers at once.
        Otherwise each layer waits for the pool that is busiest in it.
        """
        speeds = [host.speed for host in self.hosts]
        layers: list[int | None] = [None] if by_layer else [*range(self.num_layers)]
        even = busiest = 0.0
        for layer in layers:
            loads = [self.load(host, layer) for host in range(len(self.hosts))]
            even += sum(loads) / max(1e-9, sum(speeds))
            busiest += max(
                (load / speed for load, speed in zip(loads, speeds, strict=True)), default=0.0
            )
        return busiest / even if even else 1.0

    def weight(self, layer: int, mask: int) -> float:
        """Load of the pieces of a mask."""
        known = self._known_weights[layer]
        weight = known.get(mask)
        if weight is None:
            row = self._shares[layer]
            weight = known[mask] = sum(row[expert] for expert in bits(mask))
        return weight

    def load(self, host: int, layer: int | None = None) -> float:
        """What a host would carry, in one layer or in all."""
        return self._totals[host] if layer is None else self._loads[host][layer]

    def relative_load(self, host: int, layer: int | None = None) -> float:
        """Its load over its speed: what it takes in time."""
        return self.load(host, layer) / self.hosts[host].speed

    def fewer_than(self, level: int, layer: int) -> int:
        """Mask of the pieces with fewer than `level` holders."""
        reached = [self.full] + [0] * level
        for held in self.held:
            for count in range(level, 0, -1):
                reached[count] |= reached[count - 1] & held[layer]
        return self.full & ~reached[level]

    def takeable(self, host: int, layer: int, mask: int) -> int:
        """The part of a mask that a host could load and does not hold."""
        if self.hosts[host].fixed:
            return 0
        return mask & self.can[host][layer] & ~self.held[host][layer]

    def give(self, host: int, layer: int, mask: int) -> None:
        assert not mask & self.held[host][layer]
        assert mask.bit_count() <= self.room[host]
        self._set(host, layer, self.held[host][layer] | mask)

    def take(self, host: int, layer: int, mask: int) -> None:
        assert mask & self.held[host][layer] == mask
        self._set(host, layer, self.held[host][layer] & ~mask)

    def _set(self, host: int, layer: int, mask: int) -> None:
        # Loads are computed from scratch, not added to: equal holdings have exactly equal loads.
        self.room[host] += self.held[host][layer].bit_count() - mask.bit_count()
        self.held[host][layer] = mask
        self._loads[host][layer] = self.weight(layer, mask)
        self._totals[host] = sum(self._loads[host])

    def affords(self, mask: int) -> bool:
        """Whether the allowance covers loading these pieces."""
        return mask.bit_count() <= self.allowance

    def spend(self, mask: int) -> None:
        self.allowance -= mask.bit_count()

    def move(self, giver: int, taker: int, layer: int, mask: int) -> None:
        self.take(giver, layer, mask)
        self.give(taker, layer, mask)

    def give_some(self, host: int, layer: int, mask: int, limit: int) -> int:
        """Give the lowest pieces of a mask: at most `limit`, and what fits. Returns their mask."""
        given = lowest_bits(mask, min(limit, self.room[host]))
        self.give(host, layer, given)
        return given

    def fragments(self, host: int) -> Iterator[tuple[int, int]]:
        """(layer, mask) of what a host holds, last layer first."""
        for layer in range(self.num_layers - 1, -1, -1):
            if self.held[host][layer]:
                yield layer, self.held[host][layer]

    def result(self, host: int) -> Pieces:
        return Pieces.from_masks(
            {layer: mask for layer, mask in enumerate(self.held[host]) if mask}
        )
