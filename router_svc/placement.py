"""Which pieces should a pool hold?

Pure: what a pool asked for by flags, else what the mesh misses most. Nothing a
pool cannot load, nothing beyond its memory, and never less than it already serves.
Replication under load, rebalancing and draining are not here yet.
"""

from collections.abc import Iterable
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


def assign(offer: Offer, *, held: Pieces, others: Iterable[Pieces]) -> Pieces:
    """The pieces a pool is told to hold.

    `held` is what it serves already (kept before anything is added), `others` what
    each other pool holds or was told to hold. Among equals the order is by layer.
    """
    capacity = offer.capacity_pieces or len(offer.available)
    if offer.requested:
        return (offer.requested & offer.available).first(capacity)
    chosen = (held & offer.available).first(capacity)
    wanted = offer.available - chosen
    for level in _fewest_holders_first(wanted, others):
        chosen |= level.first(capacity - len(chosen))
    return chosen


def replica_levels(holders: Iterable[Pieces]) -> list[Pieces]:
    """Element k: the pieces with more than k holders; the last one for 16 and more."""
    levels: list[Pieces] = []
    for pieces in holders:
        carried = pieces
        for k, level in enumerate(levels):
            levels[k], carried = level | carried, level & carried
            if not carried:
                break
        if carried and len(levels) < MAX_REPLICA_LEVELS:
            levels.append(carried)
    return levels


def _fewest_holders_first(wanted: Pieces, holders: Iterable[Pieces]) -> Iterable[Pieces]:
    """`wanted` cut by number of holders, ascending."""
    for level in replica_levels(holders):
        yield wanted - level
        wanted &= level
    yield wanted
