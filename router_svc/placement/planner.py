"""Which pool should hold which pieces?

Pure and deterministic. In this order of importance: no pool holds more than its memory or
its files allow; as many pieces as possible have one holder, then two, up to the replicas
asked for; the hottest have more, where there is memory left; few calls per layer; load in
proportion to speed; as little movement as that allows (planning again from a plan's own
outcome changes nothing).

Load is the expected number of activated experts, not of tokens: in decode a pool
reads each activated expert's weights once, however many tokens chose it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from router_svc.placement.balance import balance
from router_svc.placement.board import Board, Host
from router_svc.placement.hot import HotPieces, drop_surplus, hot_pieces, replicate
from rpc.mesh.pieces import Pieces

STRIPINGS = ("layer", "expert")
"""`layer`: a layer whole on one pool where it fits, one call each. `expert`: every layer
spread over all pools, which read its weights in parallel."""

MAX_ROUNDS = 100
"""Of improvements; two or three are usual."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The outcome."""

    hold: Mapping[str, Pieces]  # by pool id
    short: Pieces  # pieces with fewer holders than asked for
    dark: Pieces  # pieces that no host can hold
    imbalance: float = 1.0  # work of the busiest pool over an even share of it

    def gained(self, hosts: Sequence[Host]) -> int:
        """How many pieces have to be loaded to get there."""
        return sum(len(self.hold[host.pool_id] - host.current) for host in hosts)


def plan(
    hosts: Sequence[Host],
    *,
    num_layers: int,
    num_experts: int,
    replicas: int = 1,
    striping: str = "layer",
    weights: Sequence[Sequence[float]] = (),
    tolerance: float = 0.05,
    allowance: float = math.inf,
    copies: bool = True,
) -> Plan:
    """Assign pieces to hosts.

    `replicas` 0 means as many as memory allows. `weights` [layer][expert] say how
    heavy a piece is (see `loads`); without them all are equal. Loads that differ by less
    than `tolerance` (of the mean) are left alone. At most `allowance` pieces are loaded to
    even out the load; pieces without a holder do not count. Without `copies`, hot pieces
    keep their additional holders and get no more.
    """
    if striping not in STRIPINGS:
        raise ValueError(f"striping: one of {', '.join(STRIPINGS)}, got {striping!r}")
    board = Board(hosts, num_layers, num_experts, replicas, weights, allowance)
    by_layer = striping == "layer"
    hot = hot_pieces(board, weights, by_layer=by_layer) if replicas else {}
    drop_surplus(board, hot)
    if hot and _lacking(board) > sum(board.room[host] for host in board.movable):
        hot = {}
        drop_surplus(board, hot)
    for level in range(1, board.replicas + 1):
        for layer in _heaviest_first(board):
            missing = board.fewer_than(level, layer)
            if missing and by_layer:
                _fill_whole(board, layer, missing)
            elif missing:
                _fill_spread(board, layer, missing, level)
        _repair(board, level)
    board.share_out()
    for _ in range(MAX_ROUNDS):
        if not _improve(board, hot if copies else {}, tolerance, by_layer=by_layer):
            break
    return Plan(
        hold={host.pool_id: board.result(index) for index, host in enumerate(board.hosts)},
        short=_fewer_than(board, max(1, replicas)),
        dark=_fewer_than(board, 1),
        imbalance=board.imbalance(by_layer),
    )


def imbalance(
    hosts: Sequence[Host],
    *,
    num_layers: int,
    num_experts: int,
    striping: str,
    weights: Sequence[Sequence[float]],
) -> float:
    """The imbalance of what the hosts hold now: see `Board.imbalance`."""
    board = Board(hosts, num_layers, num_experts, 0, weights)
    board.share_out()
    return board.imbalance(striping == "layer")


def _improve(board: Board, hot: HotPieces, tolerance: float, *, by_layer: bool) -> bool:
    """One round of evening out the load; whether anything has changed."""
    if replicate(board, hot, by_layer=by_layer):
        board.share_out()
        return True
    if by_layer:
        return _join_fragments(board) or balance(board, tolerance)
    moved = [balance(board, tolerance, layer) for layer in range(board.num_layers)]
    return any(moved)


def _lacking(board: Board) -> int:
    """How many copies are missing."""
    return sum(
        board.fewer_than(level, layer).bit_count()
        for level in range(1, board.replicas + 1)
        for layer in range(board.num_layers)
    )


def _fewer_than(board: Board, level: int) -> Pieces:
    return Pieces.from_masks(
        {
            layer: mask
            for layer in range(board.num_layers)
            if (mask := board.fewer_than(level, layer))
        }
    )


def _heaviest_first(board: Board) -> list[int]:
    """Layers by load, so that the small ones even out what the large ones left."""
    weight = [board.weight(layer, board.full) for layer in range(board.num_layers)]
    return sorted(range(board.num_layers), key=lambda layer: (-weight[layer], layer))


def _fill_whole(board: Board, layer: int, missing: int) -> None:
    """Give it to the least loaded pool that can take all of it, or else in the largest parts."""
    while missing:
        best: tuple[float, ...] | None = None
        for host in board.movable:
            takes = board.takeable(host, layer, missing)
            count = min(takes.bit_count(), board.room[host])
            if count:
                part = board.weight(layer, takes) / board.hosts[host].speed
                key = (-count, board.relative_load(host) + part, host)
                best = key if best is None else min(best, key)
        if best is None:
            return
        host = int(best[-1])
        takes = board.takeable(host, layer, missing)
        missing &= ~board.give_some(host, layer, takes, board.num_experts)


def _fill_spread(board: Board, layer: int, missing: int, level: int) -> None:
    """Give each pool consecutive experts up to its share, and the rest to pools with room."""
    turn = (level - 1) % max(1, len(board.movable))
    order = board.movable[turn:] + board.movable[:turn]
    held = {host: board.held[host][layer].bit_count() for host in order}
    total = sum(held.values()) + missing.bit_count()
    speed = sum(board.hosts[host].speed for host in order)
    passed, end = 0.0, 0
    for host in order:
        passed += board.hosts[host].speed
        start, end = end, round(total * passed / speed)
        limit = min(end - start, board.quota[host]) - held[host]
        if limit > 0 and (takes := board.takeable(host, layer, missing)):
            missing &= ~board.give_some(host, layer, takes, limit)
    for host in order:
        if takes := board.takeable(host, layer, missing):
            missing &= ~board.give_some(host, layer, takes, board.num_experts)


def _repair(board: Board, level: int) -> None:
    """Where no pool that could load a piece has room, make room by a chain of moves that ends at
    free memory, or at a piece that has enough other holders.

    These are augmenting paths: when there is none, no other assignment does better.
    """
    hopeless: set[int] = set()
    for layer in range(board.num_layers):
        missing = board.fewer_than(level, layer)
        while missing:
            takers = [host for host in board.movable if host not in hopeless]
            takes = 0
            for host in takers:
                takes |= board.takeable(host, layer, missing)
            if not takes:
                break
            piece = takes & -takes
            missing &= ~piece
            starts = [host for host in takers if board.takeable(host, layer, piece)]
            hopeless |= _push_in(board, starts, layer, piece, level, hopeless)


def _push_in(
    board: Board, starts: Sequence[int], layer: int, piece: int, level: int, hopeless: set[int]
) -> set[int]:
    """Place a piece along the shortest chain. Returns the hosts that no chain of moves can help."""
    queue = list(starts)
    came_from: dict[int, tuple[int, int, int] | None] = dict.fromkeys(queue)
    for host in queue:  # grows while it is walked
        if board.room[host] or _drop_spare(board, host, level):
            while (step := came_from[host]) is not None:
                giver, moved_layer, moved = step
                board.move(giver, host, moved_layer, moved)
                host = giver
            board.give(host, layer, piece)
            return set()
        for other in board.movable:
            if other in came_from or other in hopeless:
                continue
            for moved_layer, mask in board.fragments(host):
                if takes := board.takeable(other, moved_layer, mask):
                    came_from[other] = (host, moved_layer, takes & -takes)
                    queue.append(other)
                    break
    return set(queue)


def _drop_spare(board: Board, host: int, level: int) -> bool:
    """Make room for one piece by dropping one that has more than `level` holders."""
    for layer, mask in board.fragments(host):
        if spare := mask & ~board.fewer_than(level + 1, layer):
            board.take(host, layer, spare & -spare)
            return True
    return False


def _join_fragments(board: Board) -> bool:
    """Join parts of a layer where one of their pools can hold both: it saves a call."""
    joined = False
    for layer in range(board.num_layers):
        parts = [host for host in board.movable if board.held[host][layer]]
        for giver in parts:
            part = board.held[giver][layer]
            if part == board.full:
                continue
            for taker in parts:
                if (
                    board.held[taker][layer]
                    and board.affords(part)
                    and part.bit_count() <= board.room[taker]
                    and board.takeable(taker, layer, part) == part
                ):
                    board.spend(part)
                    board.move(giver, taker, layer, part)
                    joined = True
                    break
    return joined
