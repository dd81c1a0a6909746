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
    owner_E: np.ndarray  # int64 [E]
    sole: PoolLink | None  # the one pool that serves the whole layer, if there is one


class PoolSet:
    """Follows topologies: dials new pools, drops gone ones, keeps the owner map current."""

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
        self._links: dict[tuple[str, int, str], PoolLink] = {}
        self._pieces: dict[tuple[str, int, str], Pieces] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self.layers: list[LayerOwners] = []
        self.version = 0
        self._rebuild()

    @property
    def links(self) -> list[PoolLink]:
        return list(self._links.values())

    def apply(self, topology: router_pb2.Topology) -> None:
        """Take a newer topology."""
        self.version = topology.version.counter
        wanted = {}
        for pool in topology.pools:
            key = (pool.pool_id, pool.incarnation, pool.address)
            wanted[key] = Pieces.from_message(
                pool.pieces, num_layers=self._num_layers, num_experts=self._num_experts
            )
        for key in [key for key in self._links if key not in wanted]:
            link = self._links.pop(key)
            task = asyncio.ensure_future(link.stop())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        for key in wanted:
            if key not in self._links:
                pool_id, _, address = key
                self._links[key] = self._make_link(pool_id, address, self._rebuild)
                self._links[key].start()
        self._pieces = wanted
        self._rebuild()

    def missing(self) -> dict[int, int]:
        """layer_idx -> number of its experts that no connected pool serves."""
        counts = {
            layer_idx: int((owners.owner_E < 0).sum())
            for layer_idx, owners in enumerate(self.layers)
        }
        return {layer_idx: count for layer_idx, count in counts.items() if count}

    async def stop(self) -> None:
        for link in self._links.values():
            await link.stop()
        self._links.clear()

    def _rebuild(self) -> None:
        usable = sorted(
            (
                (link.pool_id, link, self._pieces[key])
                for key, link in self._links.items()
                if link.usable and key in self._pieces
            ),
            key=lambda item: item[0],
        )
        self.layers = [self._owners(layer_idx, usable) for layer_idx in range(self._num_layers)]

    def _owners(self, layer_idx: int, usable: list[tuple[str, PoolLink, Pieces]]) -> LayerOwners:
        """Few pools per layer: whoever covers most of what is left; ties rotate over layers."""
        left = set(range(self._num_experts))
        chosen: list[tuple[str, PoolLink, set[int]]] = []
        candidates = [(name, link, set(pieces.experts(layer_idx))) for name, link, pieces in usable]
        if candidates:
            turn = layer_idx % len(candidates)
            candidates = candidates[turn:] + candidates[:turn]
        while left and candidates:
            name, link, experts = max(candidates, key=lambda item: len(item[2] & left))
            if not experts & left:
                break
            chosen.append((name, link, experts & left))
            left -= experts
        chosen.sort(key=lambda item: item[0])
        owner_E = np.full(self._num_experts, -1, dtype=np.int64)
        for index, (_, _, experts) in enumerate(chosen):
            owner_E[sorted(experts)] = index
        sole = chosen[0][1] if len(chosen) == 1 and not left else None
        return LayerOwners(tuple(link for _, link, _ in chosen), owner_E, sole)
