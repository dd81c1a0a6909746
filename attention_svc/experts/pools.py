"""Which pool serves which piece now? Links to the pools of the topology, and the owner map."""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from attention_svc.experts.health import speed_class
from attention_svc.experts.link import PoolLink
from attention_svc.experts.sharing import share_out
from protos import attention_pb2, router_pb2
from rpc.mesh.pieces import Pieces


@dataclass(frozen=True)
class LayerOwners:
    """Who serves a layer: `links` in ascending pool id; `owner_E` indexes them (-1: no pool)."""

    links: tuple[PoolLink, ...]
    owner_E: np.ndarray  # int32 [E]
    complete: bool  # every expert has an owner
    sole: PoolLink | None  # the one pool that serves the whole layer, if there is one


@dataclass(slots=True)
class _Member:
    """A pool with a link. `rank`: 0 ready, 1 draining, 2 no longer in the topology."""

    link: PoolLink
    pieces: Pieces
    rank: int

    def standing(self, fastest_s: float) -> tuple[bool, int, int]:
        """Lower is preferred. `fastest_s`: the fastest candidate's expected round trip."""
        speed = speed_class(self.link.predicted_s, fastest_s)
        return (self.link.health.ejected, self.rank, speed)


_Key = tuple[str, int, str]
"""(pool_id, incarnation, address)."""


class PoolSet:
    """Follows topologies: dials new pools, drops gone ones, keeps the owner map current.

    A pool that leaves the topology while its stream is healthy keeps serving the pieces that no
    pool of the topology serves, until its stream ends.
    """

    def __init__(
        self,
        num_layers: int,
        num_experts: int,
        make_link: Callable[[str, str, Callable[[], None]], PoolLink],
        *,
        same_numerics: bool = False,
        work: Callable[[], np.ndarray] | None = None,
    ):
        """
        Args:
            make_link: called with (pool_id, address, on_change).
            same_numerics: see AttentionConfig.
            work: gives the work of each expert so far, [layers, E]; without it all are equal.
        """
        self._work = work or (lambda: np.ones((num_layers, num_experts)))
        self._work_LE = self._work()
        self._same_numerics = same_numerics
        self._num_layers = num_layers
        self.num_experts = num_experts
        self._make_link = make_link
        self._members: dict[_Key, _Member] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self.layers: list[LayerOwners] = []
        self.version = 0
        self.refresh()

    @property
    def links(self) -> list[PoolLink]:
        """Of all members; any thread."""
        return [member.link for member in list(self._members.values())]

    def apply(self, topology: router_pb2.Topology) -> None:
        """Take a newer topology. Raises ValueError for a malformed entry, changing nothing."""
        newest: dict[str, int] = {}
        listed: dict[_Key, tuple[Pieces, int]] = {}
        for pool in topology.pools:
            key = (pool.pool_id, pool.incarnation, pool.address)
            newest[pool.pool_id] = pool.incarnation
            pieces = Pieces.from_message(
                pool.pieces, num_layers=self._num_layers, num_experts=self.num_experts
            )
            listed[key] = pieces, int(pool.state == router_pb2.MEMBER_STATE_DRAINING)
        # Every entry is valid: only now is anything changed.
        self.version = topology.version.counter
        for key, member in list(self._members.items()):
            if key in listed:
                member.pieces, member.rank = listed.pop(key)
                continue
            member.rank = 2
            if key[0] in newest:
                self._drop(key)  # replaced by a newer incarnation, or moved to another address
        for key, (pieces, rank) in listed.items():
            link = self._make_link(key[0], key[2], self.refresh)
            self._members[key] = _Member(link, pieces, rank)
            link.start()
        # Read with a topology only, so that experts stay where they are while no pieces move.
        self._work_LE = self._work()
        self.refresh()

    def reach(self) -> list[attention_pb2.PoolReach]:
        """How each pool is seen from this service, in ascending pool id."""
        return [
            attention_pb2.PoolReach(
                pool_id=link.pool_id,
                address=link.address,
                reachable=link.usable,
                error="" if link.usable else link.last_error,
                numerics_id=link.numerics_id,
                ejected=link.health.ejected,
                network_ms=link.health.network_s * 1e3,
            )
            for link in sorted(self.links, key=lambda link: link.pool_id)
        ]

    def awaited(self) -> list[str]:
        """Ids of the pools that owe an answer; any thread."""
        return sorted({link.pool_id for link in self.links if link.owes_answers})

    def missing(self) -> dict[int, int]:
        """layer_idx -> number of its experts that no connected pool serves."""
        counts = {
            layer_idx: int((owners.owner_E < 0).sum())
            for layer_idx, owners in enumerate(self.layers)
        }
        return {layer_idx: count for layer_idx, count in counts.items() if count}

    async def stop(self) -> None:
        for link in self.links:
            await link.stop()
        self._members.clear()

    def _drop(self, key: _Key) -> None:
        task = asyncio.ensure_future(self._members.pop(key).link.stop())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def cover(
        self, layer_idx: int, experts: Sequence[int], avoid: Collection[tuple[PoolLink, int]]
    ) -> list[tuple[PoolLink, list[int]]] | None:
        """Pools that together serve these experts now, with the experts of each.

        None when some have no pool. `avoid`: (link, generation of its stream) not to be asked.
        """
        members = [m for m in self._usable() if (m.link, m.link.generation) not in avoid]
        chosen, left = self._choose(layer_idx, set(experts), members, Counter())
        return None if left else [(link, sorted(share)) for link, share in chosen]

    def lacks(self, link: PoolLink, layer_idx: int, expert_id: int) -> None:
        """A pool does not hold a piece, by its own word, until the next topology."""
        for member in self._members.values():
            if member.link is link:
                member.pieces = member.pieces - Pieces([(layer_idx, expert_id)])
        self.refresh()

    def refuses(self, link: PoolLink) -> None:
        """A pool takes no new calls: it is draining, and the topology will say so."""
        for member in self._members.values():
            if member.link is link and member.rank == 0:
                member.rank = 1
        self.refresh()

    def _usable(self) -> list[_Member]:
        """Members with a stream, in ascending pool id."""
        usable = sorted(
            (member for member in self._members.values() if member.link.usable),
            key=lambda member: member.link.pool_id,
        )
        if self._same_numerics and usable:
            held = Counter[str]()
            for member in usable:
                held[member.link.numerics_id] += len(member.pieces)
            common = min(held, key=lambda numerics_id: (-held[numerics_id], numerics_id))
            usable = [member for member in usable if member.link.numerics_id == common]
        return usable

    def refresh(self) -> None:
        """Choose again: the pieces, state, stream or health of a pool have changed."""
        for key, member in list(self._members.items()):
            if member.rank == 2 and not member.link.usable:
                self._drop(key)
        usable = self._usable()
        shares = Counter[str]()
        self.layers = [
            self._owners(layer_idx, usable, shares) for layer_idx in range(self._num_layers)
        ]

    def _owners(self, layer_idx: int, usable: list[_Member], shares: Counter[str]) -> LayerOwners:
        chosen, left = self._choose(layer_idx, set(range(self.num_experts)), usable, shares)
        owner_E = np.full(self.num_experts, -1, dtype=np.int32)
        for index, (_, experts) in enumerate(chosen):
            owner_E[sorted(experts)] = index
        links = tuple(link for link, _ in chosen)
        sole = links[0] if len(links) == 1 and not left else None
        return LayerOwners(links, owner_E, complete=not left, sole=sole)

    def _choose(
        self, layer_idx: int, left: set[int], usable: list[_Member], shares: Counter[str]
    ) -> tuple[list[tuple[PoolLink, set[int]]], set[int]]:
        """(pools in ascending pool id with their experts, the experts that no pool serves).

        Trusted, staying and fast pools come before ejected, leaving and slow ones. Few pools per
        layer: each time the one that covers most of what is left, among equals the one with fewest
        in `shares` (pieces by pool id, updated here). Experts that several chosen pools hold are
        shared out by work.
        """
        chosen: list[tuple[PoolLink, set[int]]] = []
        holders = [(one, set(one.pieces.experts(layer_idx))) for one in usable]
        holders = [(one, experts) for one, experts in holders if experts & left]
        times_s = [one.link.predicted_s for one, _ in holders if not one.link.health.ejected]
        fastest_s = min(filter(None, times_s), default=0.0)
        standings = [one.standing(fastest_s) for one, _ in holders]
        for standing in sorted(set(standings)):
            candidates = {
                one.link: experts
                for (one, experts), its in zip(holders, standings, strict=True)
                if its == standing
            }
            alike: dict[PoolLink, set[int]] = {}
            while left and candidates:
                link, experts = max(
                    candidates.items(),
                    key=lambda one: (len(one[1] & left), -shares[one[0].pool_id]),
                )
                if not experts & left:
                    break
                alike[link] = experts & left
                left = left - experts
            for link, experts in share_out(alike, candidates, self._work_LE[layer_idx]).items():
                if experts:
                    chosen.append((link, experts))
                    shares[link.pool_id] += len(experts)
        chosen.sort(key=lambda item: item[0].pool_id)
        return chosen, left
