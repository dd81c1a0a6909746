"""Which pieces should a pool hold?

Pure: what a pool asked for by flags, else what the mesh misses most. Nothing a
pool cannot load, nothing beyond its memory, and never less than it already serves.
Replication under load, rebalancing and draining are not here yet.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rpc.pieces import Pieces

MAX_REPLICA_LEVELS = 16
"""Pieces with more holders than this count as equally replicated."""


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What a pool can hold."""

    available: Pieces  # loadable from its checkpoint
    requested: Pieces  # asked for by its flags; empty: the router decides
    capacity_pieces: int  # 0: no limit


class Replicas:
    """How many holders each piece has.

    Kept as sets: level k has the pieces with more than k holders, one bitmask per
    layer, so that a thousand pools are counted in milliseconds.
    """

    def __init__(self, holders: Iterable[Pieces] = ()):
        self._levels: list[dict[int, int]] = []
        for pieces in holders:
            self.add(pieces)

    def add(self, pieces: Pieces) -> None:
        """One more pool holds these."""
        for layer, mask in pieces.masks.items():
            for level in self._levels:
                before = level.get(layer, 0)
                level[layer] = before | mask
                mask &= before
                if not mask:
                    break
            if mask and len(self._levels) < MAX_REPLICA_LEVELS:
                self._levels.append({layer: mask})

    def fewest_first(self, wanted: Pieces) -> Iterator[Pieces]:
        """`wanted` cut by number of holders, ascending."""
        for masks in self._levels:
            level = Pieces.from_masks(masks)
            yield wanted - level
            wanted &= level
        yield wanted


def assign(offer: Offer, *, held: Pieces, replicas: Replicas) -> Pieces:
    """The pieces a pool is told to hold.

    `held` is what it serves already (kept before anything is added), `replicas` what
    the pools hold or were told to hold. Among equals the order is by layer.
    """
    capacity = offer.capacity_pieces or len(offer.available)
    if offer.requested:
        return (offer.requested & offer.available).first(capacity)
    chosen = (held & offer.available).first(capacity)
    for level in replicas.fewest_first(offer.available - chosen):
        if len(chosen) == capacity:
            break
        chosen |= level.first(capacity - len(chosen))
    return chosen
