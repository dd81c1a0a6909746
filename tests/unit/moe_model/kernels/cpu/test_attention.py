"""Paged attention against float64; a row's bits depend on its own query, keys and values only."""

import math
import threading
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from moe_model.kernels.cpu import library
from moe_model.kernels.cpu.attention import (
    PagedRows,
    attend_paged,
    store_tiles,
    takes_tiles,
    tile_shapes,
)
from tests.support.examples import examples
from tests.support.moe_model.kernel_cases import ISAS, needs_kernels, random, using

pytestmark = needs_kernels

F32, BF16, INT8 = torch.float32, torch.bfloat16, torch.int8
# Of the largest value. bfloat16: weights and the output are each rounded once.
TOLERANCE = {F32: 1e-5, BF16: 2.0**-7}
SHAPES = [(48, 8, 128), (4, 2, 16), (8, 1, 64), (5, 5, 80), (7, 1, 48), (2, 1, 256)]
KINDS = [(BF16, BF16), (BF16, INT8), (F32, BF16), (F32, F32), (F32, INT8)]

needs_tiles = pytest.mark.skipif(
    not takes_tiles(BF16, 4, 2, 32, 16), reason="tiles are for AVX-512"
)


@pytest.fixture(params=ISAS)
def isa(request, monkeypatch):
    yield from using(request.param, monkeypatch)


@dataclass
class Pages:
    """One sequence's keys and values in blocks of a random order; all other blocks are NaN."""

    num_cached: int
    num_groups: int
    head_dim: int
    stored: torch.dtype
    block_size: int = 16
    seed: int = 0
    tiles: bool = False

    def __post_init__(self) -> None:
        width = -(-self.num_cached // self.block_size)
        order = torch.randperm(width + 2, generator=torch.Generator().manual_seed(self.seed))
        self.table_W = order[:width].contiguous()
        shape = (width * self.block_size, self.num_groups, self.head_dim)
        self.kv, pages = [], []
        for seed in (1, 2):
            rows = random(*shape, seed=self.seed + seed, dtype=F32)
            stored, exact = self._store(rows)
            self.kv.append(exact[: self.num_cached])
            stored[self.num_cached :] = 77 if self.stored == INT8 else math.nan
            paged = torch.full((len(order), self.block_size, *stored.shape[1:]), -1).to(
                stored.dtype
            )
            if self.stored != INT8:
                paged.fill_(math.nan)
            paged[self.table_W] = stored.view(width, self.block_size, *stored.shape[1:])
            pages.append(paged)
        self.keys, self.values = pages
        self.tile()

    def tile(self) -> None:
        """Lay the pages out as tiles, in the layouts that use tiles."""
        if not self.tiles or self.keys.dim() > 4:
            return
        slots = torch.arange(self.keys.shape[0] * self.block_size)
        rows = [pages.flatten(0, 1) for pages in (self.keys, self.values)]
        shapes = tile_shapes(self.num_groups, self.head_dim, self.block_size)
        self.keys, self.values = (
            torch.empty(len(self.keys), *shape, dtype=BF16) for shape in shapes
        )
        store_tiles(*rows, self.keys, self.values, slots)

    def _store(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The stored form, and the float64 numbers that it represents."""
        if self.stored != INT8:
            return rows.to(self.stored), rows.to(self.stored).double()
        scales = rows.abs().amax(-1) / 127
        codes = (rows / scales[..., None]).round().to(INT8)
        stored = torch.cat((codes.flatten(1), scales.view(INT8)), dim=1)
        return stored, codes.double() * scales.double()[..., None]

    def attend(self, q_THP: Tensor, stop: int | None = None) -> Tensor:
        """Attend with the rows as the newest of `stop` positions (default: of all)."""
        segment = [[0, len(q_THP), stop or self.num_cached, 0]]
        rows = PagedRows(torch.tensor(segment), self.table_W)
        return attend_paged(q_THP, self.keys, self.values, self.num_groups, rows)

    def exact(self, q_THP: Tensor) -> Tensor:
        num_rows, num_heads, head_dim = q_THP.shape
        keys, values = (x.repeat_interleave(num_heads // self.num_groups, 1) for x in self.kv)
        scores = torch.einsum("thp,shp->ths", q_THP.double(), keys) / math.sqrt(head_dim)
        position_T = torch.arange(self.num_cached - num_rows, self.num_cached)
        hidden = torch.arange(self.num_cached) > position_T[:, None]
        scores.masked_fill_(hidden[:, None], -math.inf)
        return torch.einsum("ths,shp->thp", scores.softmax(-1), values).flatten(1)


@pytest.mark.parametrize("query,stored", KINDS)
@pytest.mark.parametrize("num_heads,num_groups,head_dim", SHAPES)
def test_is_the_float64_attention(isa, num_heads, num_groups, head_dim, query, stored):
    for num_cached, num_rows, block_size in ((1, 1, 16), (63, 1, 5), (65, 3, 16), (300, 40, 16)):
        pages = Pages(num_cached, num_groups, head_dim, stored, block_size)
        q_THP = random(num_rows, num_heads, head_dim, seed=3, scale=2.0, dtype=query)
        found, exact = pages.attend(q_THP), pages.exact(q_THP)
        assert found.dtype == query
        error = float((found.double() - exact).abs().max() / exact.abs().max())
        assert error < TOLERANCE[query], (num_cached, num_rows, error)


@needs_tiles
@pytest.mark.parametrize("num_heads,num_groups,head_dim", SHAPES)
def test_tiles_give_the_bits_of_rows(num_heads, num_groups, head_dim):
    for num_cached, num_rows, block_size in (
        (1, 1, 16),
        (63, 1, 16),
        (65, 3, 32),
        (1100, 7, 48),
        (300, 40, 16),
    ):
        q_THP = random(num_rows, num_heads, head_dim, seed=3, scale=2.0)
        rows, tiles = (
            Pages(num_cached, num_groups, head_dim, BF16, block_size, tiles=tiles)
            for tiles in (False, True)
        )
        assert torch.equal(tiles.attend(q_THP), rows.attend(q_THP)), (num_cached, num_rows)


@needs_tiles
def test_tiles_that_do_not_fit_are_a_value_error():
    pages = Pages(40, 2, 32, BF16, tiles=True)
    rows = PagedRows(torch.tensor([[0, 1, 40, 0]]), pages.table_W)
    k_TGP, q_1HP = random(3, 2, 32), random(1, 4, 32)

    def attend(q=q_1HP, keys=pages.keys, values=pages.values):
        return attend_paged(q, keys, values, 2, rows)

    def store(k=k_TGP, v=k_TGP, keys=pages.keys, values=pages.values, slots=(0, 5, 79)):
        store_tiles(k, v, keys, values, torch.tensor(slots))

    attend()
    store()
    with pytest.raises(ValueError, match="tiles need"):
        attend(q=random(1, 4, 32, dtype=F32))
    with pytest.raises(ValueError, match="tiles need"):
        attend(keys=pages.keys[:, :, :, :8].contiguous())
    with pytest.raises(ValueError, match="values must be"):
        attend(values=pages.keys)
    for slot in (-1, 80, 2**62):
        with pytest.raises(ValueError, match="slots name"):
            store(slots=(0, 5, slot))
    with pytest.raises(ValueError, match="as many rows"):
        store(slots=(0, 5))
    with pytest.raises(ValueError, match="as many rows"):
        store(v=random(2, 2, 32))
    with pytest.raises(ValueError, match="keys must be"):
        store(k=random(3, 2, 16), v=random(3, 2, 16))
    with pytest.raises(ValueError, match="contiguous"):
        store(keys=pages.keys[:, :, :, :, :].transpose(0, 1).contiguous().transpose(0, 1))


@pytest.mark.parametrize("query,stored", [(BF16, BF16), (BF16, INT8), (F32, F32)])
def test_a_rows_bits_are_the_same_in_decode_prefill_and_any_chunking(isa, query, stored):
    """Over the borders of tiles and parts, for 1 and 2 threads, beside other sequences."""
    num_cached, num_groups = 1100, 2
    pages = Pages(num_cached, num_groups, 32, stored)
    q_SHP = random(num_cached, 12, 32, seed=4, scale=2.0, dtype=query)
    at_once = pages.attend(q_SHP)
    start = 0
    for size in (1, 5, 60, 63, 130, 700, 4, 137):
        chunk = pages.attend(q_SHP[start : start + size], start + size)
        assert torch.equal(chunk, at_once[start : start + size]), (start, size)
        start += size
    assert start == num_cached
    library.need().set_threads(1)
    for position in (0, 63, 64, 1023, 1024, 1099):
        alone = pages.attend(q_SHP[position : position + 1], position + 1)
        assert torch.equal(alone[0], at_once[position]), position
    library.need().set_threads(2)
    # As many decode rows as make whole parts the tasks, in another order and other blocks.
    order = torch.tensor([5, 1099, 1024, 1023, 64, 63, 62, 700, 333])
    moved = Pages(num_cached, num_groups, 32, stored, seed=9)
    for mine, theirs in ((moved.keys, pages.keys), (moved.values, pages.values)):
        mine[moved.table_W] = theirs[pages.table_W]
    segments = torch.tensor([[row, 1, int(at) + 1, 0] for row, at in enumerate(order)])
    rows = PagedRows(segments, moved.table_W)
    together = attend_paged(q_SHP[order], moved.keys, moved.values, num_groups, rows)
    assert torch.equal(together, at_once[order])


def test_a_rows_bits_do_not_depend_on_how_often_its_key_head_is_shared_out(isa):
    pages = Pages(200, 1, 64, BF16)
    q_1HP = random(1, 13, 64, seed=5, dtype=BF16)
    whole = pages.attend(q_1HP).view(13, 64)
    for head in range(13):
        assert torch.equal(pages.attend(q_1HP[:, head : head + 1].contiguous())[0], whole[head])


@examples(30)
@given(
    st.integers(1, 400),
    st.integers(1, 40),
    st.sampled_from(SHAPES),
    st.sampled_from(KINDS),
    st.sampled_from([1, 7, 16]),
    st.integers(0, 1000),
)
def test_random_sizes(num_cached, num_rows, shape, kind, block_size, seed):
    num_heads, num_groups, head_dim = shape
    query, stored = kind
    num_rows = min(num_rows, num_cached)
    pages = Pages(num_cached, num_groups, head_dim, stored, block_size, seed)
    q_THP = random(num_rows, num_heads, head_dim, seed=seed, dtype=query)
    found, exact = pages.attend(q_THP), pages.exact(q_THP)
    assert float((found.double() - exact).abs().max()) < TOLERANCE[query] * float(exact.abs().max())
    row = seed % num_rows
    alone = pages.attend(q_THP[row : row + 1], num_cached - num_rows + row + 1)
    assert torch.equal(alone[0], found[row])


def test_a_later_rows_nan_reaches_no_earlier_row(isa):
    for stored in (BF16, F32):
        pages = Pages(200, 2, 32, stored)
        q_THP = random(70, 4, 32, seed=6, dtype=stored)
        clean = pages.attend(q_THP)
        for bad in (199, 164, 165):
            for rows in (pages.keys, pages.values):
                rows[pages.table_W[bad // 16], bad % 16] = math.nan
        found = pages.attend(q_THP)
        assert torch.equal(found[: 164 - 130], clean[: 164 - 130])
        assert bool(found[164 - 130 :].isnan().all())


def test_large_scores_overflow_nothing(isa):
    pages = Pages(130, 1, 16, F32)
    q_THP = random(3, 2, 16, seed=7, scale=1e6, dtype=F32)
    found, exact = pages.attend(q_THP), pages.exact(q_THP)
    assert bool(found.isfinite().all())
    torch.testing.assert_close(found.double(), exact, atol=1e-2, rtol=1e-2)


def test_several_threads_may_call_at_once():
    pages = Pages(300, 2, 32, BF16)
    q_THP = random(20, 4, 32, seed=8)
    expected, wrong = pages.attend(q_THP), []

    def call() -> None:
        for _ in range(20):
            if not torch.equal(pages.attend(q_THP), expected):
                wrong.append(1)

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


def test_what_does_not_fit_is_a_value_error():
    pages = Pages(40, 2, 32, BF16)
    q = random(1, 4, 32)

    def attend(q=q, keys=pages.keys, values=pages.values, groups=2, seg=(0, 1, 40, 0), table=None):
        table = pages.table_W if table is None else table
        return attend_paged(q, keys, values, groups, PagedRows(torch.tensor([seg]), table))

    attend()
    with pytest.raises(ValueError, match="heads"):
        attend(groups=3)
    with pytest.raises(ValueError, match="keys must be"):
        attend(q=random(1, 4, 16))
    with pytest.raises(ValueError, match="values must be"):
        attend(values=pages.values[:, :8])
    with pytest.raises(ValueError, match="heads"):
        attend(q=q.double())
    for segment in (
        *((0, 2, 40, 0), (1, 1, 40, 0), (-1, 1, 40, 0)),
        *((0, 1, 0, 0), (0, 1, 49, 0), (0, 1, 2**60, 0), (0, 1, 40, 1), (0, 1, 40, -1)),
        (2**62, 2**62, 2**62, 2**62),
    ):
        with pytest.raises(ValueError, match="segments name"):
            attend(seg=segment)
    for block in (-1, 5, 2**62):
        with pytest.raises(ValueError, match="tables name a block"):
            attend(table=torch.tensor([0, 1, block]))
    with pytest.raises(ValueError, match="tables must be int64"):
        attend(table=pages.table_W.int())
    with pytest.raises(ValueError, match="contiguous"):
        attend(
            keys=pages.keys.expand(2, *pages.keys.shape)[0]
            .transpose(0, 1)
            .contiguous()
            .transpose(0, 1),
            values=pages.values,
        )
