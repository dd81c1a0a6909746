"""What does the published topology contain, and when is there a new one?

Pure (the clock is passed in). Snapshots are versioned (epoch, counter); a new
one is made only when its content differs from the last.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from protos import router_pb2
from router_svc.members.member import DRAINING, READY, Member, Model
from rpc.mesh.pieces import Pieces

log = logging.getLogger(__name__)

MAX_UNCOVERED_EXAMPLES = 16


@dataclass(frozen=True)
class _Lost:
    """A pool that vanished, with its last entry in the topology."""

    entry: router_pb2.PoolEntry
    pieces: Pieces
    at_s: float


class TopologyBook:
    """Makes the snapshots.

    A pool that leaves or dies loses its entry at once, with one exception: when
    more than half of the pools vanish within `window_s`, the router's own network is
    the likelier cause, and their entries stay (or come back) until enough pools
    are live again. Attention services notice dead pools without the router.
    """

    def __init__(self, *, epoch: int, window_s: float):
        self._epoch = epoch
        self._counter = 0
        self._window_s = window_s
        self._lost: dict[str, _Lost] = {}
        self.kept_pools: tuple[str, ...] = ()
        """Pools of the latest topology that have no stream, ascending."""
        self._entries: dict[str, tuple[router_pb2.PoolEntry, Pieces]] = {}
        self.latest: router_pb2.Topology | None = None
        self.uncovered = Pieces()

    @property
    def shown(self) -> dict[str, Pieces]:
        """What the latest topology shows of each pool."""
        return {pool_id: pieces for pool_id, (_, pieces) in self._entries.items()}

    def pool_vanished(self, pool_id: str, now_s: float) -> None:
        """A pool's stream broke or its lease ran out, without a Leave."""
        entry, pieces = self._entries.get(pool_id, (None, Pieces()))
        if entry is not None and pieces:
            self._lost[pool_id] = _Lost(entry, pieces, now_s)

    def pool_left(self, pool_id: str) -> None:
        """A pool sent Leave: its entry is not kept."""
        self._lost.pop(pool_id, None)

    def forget_lost(self) -> None:
        """The mesh is empty: the next member may bring another model."""
        self._lost.clear()

    def publish(
        self,
        model: Model | None,
        pools: Sequence[Member],
        attentions: Sequence[Member],
        *,
        now_s: float,
        removing: bool = True,
    ) -> router_pb2.Topology | None:
        """The next snapshot, or None when nothing has changed.

        `pools` and `attentions` ascend by id. With `removing` false, the entries of all
        vanished pools stay.
        """
        entries = {entry.pool_id: (entry, pieces) for entry, pieces in _pool_entries(pools)}
        kept = self._keep(entries, now_s, removing=removing)
        for lost in kept:
            entries[lost.entry.pool_id] = (lost.entry, lost.pieces)
        topology = router_pb2.Topology(
            pools=[entries[pool_id][0] for pool_id in sorted(entries)],
            attentions=[
                router_pb2.AttentionEntry(
                    attention_id=member.member_id,
                    incarnation=member.incarnation,
                    address=str(member.address),
                    state=member.state,
                )
                for member in attentions
            ],
        )
        uncovered = Pieces()
        if model is not None:
            topology.checkpoint_id = model.checkpoint_id
            topology.num_layers, topology.num_experts = model.num_layers, model.num_experts
            covered = Pieces.union(
                pieces for entry, pieces in entries.values() if entry.state == READY
            )
            uncovered = covered.missing(model.num_layers, model.num_experts)
            topology.uncovered_pieces = len(uncovered)
            for layer in uncovered.layers[:MAX_UNCOVERED_EXAMPLES]:
                topology.first_uncovered.add(layer_idx=layer, count=uncovered.count(layer))
        self._entries, self.uncovered = entries, uncovered
        self._note_kept(tuple(sorted(lost.entry.pool_id for lost in kept)))
        return self._versioned(topology)

    def _keep(
        self,
        entries: dict[str, tuple[router_pb2.PoolEntry, Pieces]],
        now_s: float,
        *,
        removing: bool,
    ) -> list[_Lost]:
        """The vanished pools whose entries stay; forgets those that are back or expired."""
        for pool_id, (entry, pieces) in entries.items():
            lost = self._lost.get(pool_id)
            if lost and (pieces or entry.incarnation != lost.entry.incarnation):
                del self._lost[pool_id]
        live = len(entries.keys() - self._lost.keys())
        if not removing or 2 * len(self._lost) > live + len(self._lost):
            return list(self._lost.values())
        self._lost = {
            pool_id: lost
            for pool_id, lost in self._lost.items()
            if now_s - lost.at_s <= self._window_s
        }
        return []

    def _note_kept(self, kept: tuple[str, ...]) -> None:
        if len(kept) > len(self.kept_pools):
            log.warning(
                "keeping the topology of %d pools without a lease (more than half of all"
                " vanished at once, or the router has just restarted): %s",
                len(kept),
                ", ".join(kept[:8]),
            )
        self.kept_pools = kept

    def _versioned(self, topology: router_pb2.Topology) -> router_pb2.Topology | None:
        if self.latest is not None:
            topology.version.CopyFrom(self.latest.version)
            if topology == self.latest:
                return None
        self._counter += 1
        topology.version.epoch, topology.version.counter = self._epoch, self._counter
        self.latest = topology
        return topology


def _pool_entries(pools: Sequence[Member]) -> Iterable[tuple[router_pb2.PoolEntry, Pieces]]:
    """An entry with its pieces for each pool.

    A ready pool shows the ready pieces that are not retired. A draining one shows only those
    that no ready pool shows, so that new calls go elsewhere where they can. A loading one
    shows nothing.
    """
    held_by_ready = Pieces.union(
        member.ready - member.retired for member in pools if member.state == READY
    )
    for member in pools:
        entry = router_pb2.PoolEntry(
            pool_id=member.member_id,
            incarnation=member.incarnation,
            address=str(member.address),
            numerics_id=member.numerics_id,
            state=member.state,
        )
        pieces = Pieces()
        if member.state == READY:
            pieces = member.ready - member.retired
            entry.pieces.CopyFrom(pieces.to_message() if member.retired else member.ready_message)
        elif member.state == DRAINING:
            pieces = member.ready - held_by_ready - member.retired
            entry.pieces.CopyFrom(pieces.to_message())
        yield entry, pieces
