"""Which pool serves which piece now? Links to the pools of the topology, and the owner map."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from attention_svc.pool_link import PoolLink
from protos import router_pb2
from rpc.pieces import Pieces

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LayerOwners:
    """Who serves a layer: `links` in ascending pool id, `owner_E` indexes them (-1: nobody)."""

    links: tuple[PoolLink, ...]
    owner_E: np.ndarray  # int32 [E]
    complete: bool  # every expert has an owner
    sole: PoolLink | None  # the one pool that serves the whole layer, if there is one


@dataclass(slots=True)
class _Member:
    """A pool we have a link to. `rank`: 0 ready, 1 draining, 2 gone from the topology."""

    link: PoolLink
    pieces: Pieces
    rank: int


_Key = tuple[str, int, str]
"""(pool_id, incarnation, address)."""


class PoolSet:
    """Follows topologies: dials new pools, drops gone ones, keeps the owner map current.

    A pool that leaves the topology while its stream is healthy goes on serving what nobody
    in the topology serves, until its stream ends: the router never forces us off it.
    """

    def __init__(
        self,
        num_layers: int,
        num_experts: int,
        make_link: Callable[[str, str, Callable[[], None]], PoolLink],
    ):
        """`make_link(pool_id, address, on_change)`."""
        self._num_layers = num_layers
        self._num_experts = num_experts
        self._make_link = make_link
        self._members: dict[_Key, _Member] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self.layers: list[LayerOwners] = []
        self.version = 0
        self._rebuild()

    @property
    def links(self) -> list[PoolLink]:
        return [member.link for member in self._members.values()]

    def apply(self, topology: router_pb2.Topology) -> None:
        """Take a newer topology."""
        self.version = topology.version.counter
        for member in self._members.values():
            member.rank = 2
        newest: dict[str, int] = {}
        for pool in topology.pools:
            key = (pool.pool_id, pool.incarnation, pool.address)
            newest[pool.pool_id] = pool.incarnation
            pieces = Pieces.from_message(
                pool.pieces, num_layers=self._num_layers, num_experts=self._num_experts
            )
            rank = int(pool.state == router_pb2.MEMBER_STATE_DRAINING)
            if key in self._members:
                self._members[key].pieces, self._members[key].rank = pieces, rank
            else:
                link = self._make_link(pool.pool_id, pool.address, self._rebuild)
                self._members[key] = _Member(link, pieces, rank)
                link.start()
        for key, member in list(self._members.items()):
            if member.rank == 2 and key[0] in newest:
                self._drop(key)  # fenced by a newer incarnation, or moved to another address
        self._rebuild()

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

    def _rebuild(self) -> None:
        for key, member in list(self._members.items()):
            if member.rank == 2 and not member.link.usable:
                self._drop(key)
        usable = sorted(
            (member for member in self._members.values() if member.link.usable),
            key=lambda member: member.link.pool_id,
        )
        self.layers = [self._owners(layer_idx, usable) for layer_idx in range(self._num_layers)]

    def _owners(self, layer_idx: int, usable: list[_Member]) -> LayerOwners:
        """Few pools per layer: whoever covers most of what is left; ties rotate over layers."""
        left = set(range(self._num_experts))
        chosen: list[tuple[PoolLink, set[int]]] = []
        turn = layer_idx % max(1, len(usable))
        for rank in (0, 1, 2):
            candidates = [
                (member.link, set(member.pieces.experts(layer_idx)))
                for member in usable[turn:] + usable[:turn]
                if member.rank == rank
            ]
            while left and candidates:
                link, experts = max(candidates, key=lambda candidate: len(candidate[1] & left))
                if not experts & left:
                    break
                chosen.append((link, experts & left))
                left -= experts
        chosen.sort(key=lambda item: item[0].pool_id)
        owner_E = np.full(self._num_experts, -1, dtype=np.int32)
        for index, (_, experts) in enumerate(chosen):
            owner_E[sorted(experts)] = index
        links = tuple(link for link, _ in chosen)
        sole = links[0] if len(links) == 1 and not left else None
        return LayerOwners(links, owner_E, complete=not left, sole=sole)
