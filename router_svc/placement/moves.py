"""What does a plan change, piece by piece, for an operator to read?"""

from collections.abc import Sequence
from dataclasses import dataclass

from protos import router_pb2
from router_svc.placement.board import Host
from router_svc.placement.planner import Plan
from rpc.mesh.pieces import Piece

MAX_MOVES_SHOWN = 256


@dataclass(frozen=True, kw_only=True)
class Rebalanced:
    """What rebalancing for an operator has done, or would do."""

    loaded: int = 0  # pieces that pools load
    before: float = 1.0  # work of the busiest pool over the mean
    after: float = 1.0
    moves: Sequence[router_pb2.PieceMove] = ()


def piece_moves(
    hosts: Sequence[Host], made: Plan, weights: Sequence[Sequence[float]]
) -> list[router_pb2.PieceMove]:
    """The heaviest first, at most `MAX_MOVES_SHOWN`."""
    moves: dict[Piece, router_pb2.PieceMove] = {}

    def move(piece: Piece) -> router_pb2.PieceMove:
        layer_idx, expert_id = piece
        weight = weights[layer_idx][expert_id] if weights else 1.0
        return moves.setdefault(
            piece, router_pb2.PieceMove(layer_idx=layer_idx, expert_id=expert_id, weight=weight)
        )

    for host in sorted(hosts, key=lambda host: host.pool_id):
        hold = made.hold[host.pool_id]
        for piece in hold - host.current:
            move(piece).loads_on.append(host.pool_id)
        for piece in host.current - hold:
            move(piece).leaves.append(host.pool_id)
    order = sorted(moves, key=lambda piece: (-moves[piece].weight, piece))
    return [moves[piece] for piece in order[:MAX_MOVES_SHOWN]]
