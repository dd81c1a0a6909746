"""Blocks come back from host memory with every bit, in every layout."""

import pytest
import torch

from attention_svc.kv import side_stream
from attention_svc.kv.cache import KvCache
from attention_svc.kv.host_memory import HostMemory, make_moves
from attention_svc.kv.moves import BlockCopy, Move, MoveOut, ReadBack
from attention_svc.kv.read_back_cost import ReadBackCost
from attention_svc.kv.side_stream import consecutive
from moe_model.kernels.cpu import library
from moe_model.kernels.cpu.paged_rows import TiledLayout
from moe_model.maths.kv_layout import Int8Layout, KVLayout, PlainLayout, block_bytes

LAYERS, BLOCKS, BLOCK, GROUPS, HEAD = 3, 6, 4, 2, 6
LAYOUTS = [
    PlainLayout(GROUPS, HEAD, torch.float32),
    PlainLayout(GROUPS, HEAD, torch.bfloat16),
    PlainLayout(1, 5, torch.bfloat16),
    PlainLayout(1, 1, torch.int8),  # pages of 4 bytes, no whole word
    Int8Layout(GROUPS, HEAD),
    pytest.param(
        TiledLayout(GROUPS, HEAD),
        marks=pytest.mark.skipif(library.load() is None, reason="the kernels are not built"),
    ),
]


class Both:
    """A cache of random bytes and host memory."""

    def __init__(self, layout: KVLayout, num_slots: int = 4):
        self.cache = KvCache(
            layout,
            num_layers=LAYERS,
            num_blocks=BLOCKS,
            block_size=BLOCK,
            device=torch.device("cpu"),
        )
        self.cost = ReadBackCost()
        self.host = HostMemory(self.cache, num_slots, self.cost)
        for layer_idx in range(LAYERS):
            for pages in self.cache.pages(layer_idx):
                content = pages.view(torch.uint8)
                content.copy_(torch.randint(0, 256, content.shape, dtype=torch.uint8))

    def make(self, *moves: Move) -> None:
        make_moves(moves, self.cache, self.host)

    def bits(self, block: int) -> bytes:
        return b"".join(
            pages[block].contiguous().view(torch.uint8).numpy().tobytes()
            for layer_idx in range(LAYERS)
            for pages in self.cache.pages(layer_idx)
        )

    def all_bits(self) -> list[bytes]:
        return [self.bits(block) for block in range(BLOCKS)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_bit_of_every_layer_comes_back_and_no_other_block_changes(layout: KVLayout):
    both = Both(layout)
    before = both.all_bits()
    both.make(MoveOut(1, 3), MoveOut(4, 0))
    both.cache.clear([1, 4])
    assert both.bits(1) != before[1]
    both.make(ReadBack(3, 5, BLOCK), ReadBack(0, 1, BLOCK))
    zero = bytes(len(before[4]))
    assert both.all_bits() == [before[0], before[4], *before[2:4], zero, before[1]]


@pytest.mark.parametrize("num_rows", range(1, BLOCK))
@pytest.mark.parametrize("layout", LAYOUTS[:2] + LAYOUTS[4:])
def test_the_rows_after_those_that_are_read_back_are_zero(layout: KVLayout, num_rows: int):
    both, copied = Both(layout), Both(layout)
    both.make(MoveOut(1, 2), ReadBack(2, 3, num_rows))
    make_moves([BlockCopy(1, 3, num_rows)], both.cache, None)
    expected = both.bits(3)
    both.cache.clear([3])
    both.make(ReadBack(2, 3, num_rows))
    assert both.bits(3) == expected
    assert copied.bits(3) != expected


def test_moves_are_made_in_their_order():
    """A block changes hands several times before a step, and a slot too."""
    both = Both(LAYOUTS[0])
    before = both.all_bits()
    both.make(
        MoveOut(0, 0),
        ReadBack(0, 2, BLOCK),
        MoveOut(1, 0),  # the slot is another block's now
        BlockCopy(3, 1, BLOCK),
        MoveOut(4, 1),
        MoveOut(5, 1),  # twice in a row: the last one counts
        ReadBack(0, 4, BLOCK),
        ReadBack(1, 4, BLOCK),
        ReadBack(0, 5, BLOCK),
    )
    expected = [before[0], before[3], before[0], before[3], before[5], before[1]]
    assert both.all_bits() == expected


def test_copies_both_ways_are_measured():
    both = Both(LAYOUTS[0])
    both.cost.note_computed(1, 1e9)
    assert both.cost._copying.seconds_each is None
    both.make(MoveOut(0, 0))
    out_s = both.cost._copying.seconds_each
    both.make(ReadBack(0, 1, BLOCK))
    assert out_s is not None
    assert both.cost._copying.things > 1


def test_slots_in_a_row_are_copied_at_once():
    assert consecutive([3, 4, 5, 2, 1, 7]) == [range(3, 6), range(2, 3), range(1, 2), range(7, 8)]
    assert consecutive([]) == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_every_bit_comes_back_and_the_host_waits_for_nothing(monkeypatch):
    num_blocks, layout = 64, PlainLayout(2, 16, torch.bfloat16)
    cache = KvCache(
        layout,
        num_layers=LAYERS,
        num_blocks=num_blocks,
        block_size=BLOCK,
        device=torch.device("cuda"),
    )
    one = block_bytes(layout, LAYERS, BLOCK)
    monkeypatch.setattr(side_stream, "BUFFER_BYTES", 5 * one)
    host = HostMemory(cache, 50, ReadBackCost())
    for words in cache.words:
        words.copy_(torch.randint(-(2**62), 2**62, words.shape))
    before = [words.clone() for words in cache.words]
    blocks = torch.randperm(num_blocks)[:50].tolist()
    targets = torch.randperm(num_blocks)[:50].tolist()
    out = [MoveOut(block, slot) for slot, block in enumerate(blocks)]
    back = [ReadBack(slot, block, BLOCK) for slot, block in enumerate(targets)]
    torch.cuda.set_sync_debug_mode("error")
    try:
        make_moves(out, cache, host)
        for words in cache.words:
            words.zero_()  # at once: what is copied out has been read by then
        make_moves(back, cache, host)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for words, original in zip(cache.words, before, strict=True):
        assert torch.equal(words[:, targets], original[:, blocks])
