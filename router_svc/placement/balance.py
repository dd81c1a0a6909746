"""How is load evened out among pools that already hold everything, with few moves?

Units of movement are a pool's part of a layer (layer striping) or single experts.
"""

from collections.abc import Iterator

from router_svc.placement.board import Board
from rpc.mesh.pieces import bits

MAX_CANDIDATES = 16
"""How many of the most and of the least loaded pools are paired in the search for a move."""


def balance(board: Board, tolerance: float, layer: int | None = None) -> bool:
    """Move units until loads follow speeds as well as single moves can achieve; True if any moved.

    With a layer, its single experts are moved; without one, whole parts of layers.
    Units move from hosts above their fair share to hosts below it, so few move twice.
    """
    speed = {host: board.hosts[host].speed for host in board.movable}
    moved = False
    while _one_transfer(board, speed, tolerance, layer):
        moved = True
    return moved


def _one_transfer(
    board: Board, speed: dict[int, float], tolerance: float, layer: int | None
) -> bool:
    load = {host: board.load(host, layer) for host in board.movable}
    fair = sum(load.values()) / max(sum(speed.values()), 1e-9)
    relative = {host: load[host] / speed[host] for host in board.movable}
    # Sorting is stable, so among equals the lower host comes first.
    order = sorted(board.movable, key={host: -load for host, load in relative.items()}.__getitem__)
    for giver in order[:MAX_CANDIDATES]:
        for taker in order[: -MAX_CANDIDATES - 1 : -1]:
            gap = relative[giver] - relative[taker]
            if gap <= tolerance * fair + 1e-9:
                break
            excess = load[giver] - fair * speed[giver]
            wanted = min(excess, fair * speed[taker] - load[taker])
            giving = excess > tolerance * fair * speed[giver] and wanted > 0
            if giving and _transfer(board, giver, taker, layer, wanted + 1e-9):
                return True
            # One unit beyond the fair share still helps if both end up below the giver's load now.
            pull = 1 / speed[giver] + 1 / speed[taker]
            most = min(gap * speed[taker], 2 * gap / pull) - tolerance * fair - 1e-9
            if _transfer(board, giver, taker, layer, most, at_most=1):
                return True
    return False


def _transfer(
    board: Board, giver: int, taker: int, layer: int | None, limit: float, at_most: int = 0
) -> bool:
    """Move units with a total load of at most `limit`; whether any was moved."""
    count = 0
    for unit_layer, unit in _units(board, giver, layer):
        weight = board.weight(unit_layer, unit)
        if not 0 < weight <= limit or board.takeable(taker, unit_layer, unit) != unit:
            continue
        room = board.room[taker]
        if layer is not None:
            room = min(room, board.quota[taker] - board.held[taker][layer].bit_count())
        if unit.bit_count() > room or not board.affords(unit):
            continue
        board.spend(unit)
        board.move(giver, taker, unit_layer, unit)
        limit -= weight
        count += 1
        if count == at_most:
            break
    return count > 0


def _units(board: Board, host: int, layer: int | None) -> Iterator[tuple[int, int]]:
    """(layer, mask) of each unit that may be moved, last first."""
    if layer is None:
        yield from list(board.fragments(host))
        return
    for expert in reversed(list(bits(board.held[host][layer]))):
        yield layer, 1 << expert
