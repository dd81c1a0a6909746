"""Which pieces get more holders than every piece has, and where?

The idea is that of expert-parallel load balancers: replicate the heavy pieces, then pack by
load. A piece is hot when each of its holders still has `HOT` times the mean piece's share of
the work. It keeps an additional holder until the others, without it, would have less than
`COOL` times that share; between the two nothing changes.
"""

import math
from collections.abc import Mapping, Sequence

from router_svc.placement.board import MAX_REPLICAS, Board
from rpc.mesh.pieces import bits

HOT, COOL = 2.0, 1.4

HotPieces = Mapping[tuple[int, int], int]
"""(layer_idx, expert_id) -> holders it should have, of those that should have more."""


def wanted_holders(weight: float, replicas: int, holders: int) -> int:
    """How many holders a piece should have, with `weight` times the mean work and `holders` now."""
    needed = math.ceil(weight * replicas / HOT)
    kept = min(holders, math.ceil(weight * replicas / COOL))
    return min(MAX_REPLICAS, max(replicas, needed, kept))


def hot_pieces(board: Board, weights: Sequence[Sequence[float]], *, by_layer: bool) -> HotPieces:
    """Find the hot pieces. `by_layer`: a layer is hot as a whole, since one pool serves all of
    its experts in one call."""
    hot: dict[tuple[int, int], int] = {}
    mean = sum(map(sum, weights)) / max(1, sum(map(len, weights)))
    if not mean:
        return hot
    for layer, row in enumerate(weights):
        counts = board.holders(layer)
        if by_layer:
            row = [sum(row) / len(row)] * len(row)
            counts = [min(counts)] * len(row)
        for expert, (weight, holders) in enumerate(zip(row, counts, strict=True)):
            wanted = min(len(board.hosts), wanted_holders(weight / mean, board.replicas, holders))
            if wanted > board.replicas:
                hot[layer, expert] = wanted
    return hot


def drop_surplus(board: Board, hot: HotPieces) -> None:
    """Remove surplus copies, each time from the most loaded holder."""
    spared = [0] * board.num_layers
    for layer, expert in hot:
        spared[layer] |= 1 << expert
    for layer in range(board.num_layers):
        _drop(board, layer, board.full & ~spared[layer], board.replicas)
    for (layer, expert), wanted in hot.items():
        _drop(board, layer, 1 << expert, wanted)


def _drop(board: Board, layer: int, mask: int, most: int) -> None:
    while over := mask & ~board.fewer_than(most + 1, layer):
        holders = [host for host in board.movable if board.held[host][layer] & over]
        if not holders:
            return
        fullest = max(holders, key=lambda host: (board.relative_load(host), host))
        board.take(fullest, layer, board.held[fullest][layer] & over)


def replicate(board: Board, hot: HotPieces, *, by_layer: bool) -> bool:
    """Give hot pieces more holders where memory allows, hottest first; whether any got one."""
    added = False
    for layer, mask, wanted in _units(board, hot, by_layer):
        holders = min(board.holders(layer)[expert] for expert in bits(mask))
        for _ in range(holders, wanted):
            takers = [
                host
                for host in board.movable
                if (part := mask & ~board.held[host][layer])
                and board.takeable(host, layer, mask) == part
                and part.bit_count() <= board.room[host]
                and board.affords(part)
            ]
            if not takers:
                break
            within = None if by_layer else layer
            taker = min(takers, key=lambda host: (board.relative_load(host, within), host))
            part = mask & ~board.held[taker][layer]
            board.spend(part)
            board.give(taker, layer, part)
            added = True
    return added


def _units(board: Board, hot: HotPieces, by_layer: bool) -> list[tuple[int, int, int]]:
    """(layer, mask, holders wanted) of what is replicated together, the hottest first."""
    if by_layer:
        layers = {layer: wanted for (layer, _), wanted in hot.items()}
        units = [(layer, board.full, wanted) for layer, wanted in layers.items()]
    else:
        units = [(layer, 1 << expert, wanted) for (layer, expert), wanted in hot.items()]
    return sorted(units, key=lambda unit: (-board.weight(unit[0], unit[1]), unit))
