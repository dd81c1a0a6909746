"""How do blocks get to host memory and back? As they are, whatever the layout."""

import time
from collections.abc import Sequence
from itertools import groupby

import torch

from attention_svc.kv.cache import KvCache
from attention_svc.kv.moves import BlockCopy, Move, MoveOut, ReadBack
from attention_svc.kv.read_back_cost import ReadBackCost
from attention_svc.kv.side_stream import SideStream, pin
from moe_model.host_memory import zeros


class HostMemory:
    """A slot for each block: [slots, 2, layers, words of a page], keys before values.

    The memory of a CUDA device's blocks is pinned, and copied beside the steps (`SideStream`).
    """

    def __init__(self, cache: KvCache, num_slots: int, cost: ReadBackCost):
        """Raises ValueError if the memory cannot be pinned."""
        self._cache = cache
        self.cost = cost
        pages = cache.words[0]
        num_layers, _, num_words = pages.shape
        shape = (num_slots, 2, num_layers, num_words)
        self._slots = zeros(shape, pages.dtype, torch.device("cpu"))
        self._stream: SideStream | None = None
        if pages.device.type == "cuda":
            pin(self._slots, self)
            self._stream = SideStream(cache.words, self._slots, cost)

    def move_out(self, blocks: dict[int, int]) -> None:
        """Copy to each slot a block, which may be written as soon as this returns."""
        if self._stream is not None:
            self._stream.move_out(blocks)
            return
        start = time.perf_counter()
        for slot, block in blocks.items():
            for half, pages in enumerate(self._cache.words):
                self._slots[slot, half].copy_(pages[:, block])
        self.cost.note_copied(len(blocks), time.perf_counter() - start)

    def read_back(self, slots: dict[int, int]) -> None:
        """Copy to each block a slot; the block may be read as soon as this returns."""
        if self._stream is not None:
            self._stream.read_back(slots)
            return
        start = time.perf_counter()
        for block, slot in slots.items():
            for half, pages in enumerate(self._cache.words):
                pages[:, block].copy_(self._slots[slot, half])
        self.cost.note_copied(len(slots), time.perf_counter() - start)


def make_moves(moves: Sequence[Move], cache: KvCache, host: HostMemory | None) -> None:
    """Make them in their order, and those of a kind that follow one another at once."""
    for _, group in groupby(moves, type):
        run = list(group)
        for move in run:
            if isinstance(move, BlockCopy):
                cache.copy(move)
        # Of those to the same place only the last counts.
        out = {move.slot: move.block for move in run if isinstance(move, MoveOut)}
        back = {move.block: move for move in run if isinstance(move, ReadBack)}
        if host is not None and out:
            host.move_out(out)
        if host is not None and back:
            host.read_back({block: move.slot for block, move in back.items()})
            for move in back.values():
                cache.forget(move.block, move.num_rows)
