"""Which launches attend to a step's rows? Decode rows together, then one chunk after another."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from moe_model.kernels.cuda import paged
from moe_model.kernels.cuda.launch import launch, power_of_two, shared_memory_bytes
from moe_model.maths.kv_layout import Int8Layout, KvPages, PlainLayout
from moe_model.maths.paged_attention import AttendPages
from moe_model.maths.step_meta import ChunkMeta, StepMeta

_DECODE_QUERIES = 16
_CHUNK_TILES = ((128, 8, 4, 792), (64, 4, 3, 656), (32, 2, 2, 352))
"""Queries of a program, warps, stages, and bytes of shared memory for each number of a head.

The fastest on an H200. No bit depends on them.
"""
_TILE_QUERIES = _CHUNK_TILES[-1][0]
"""Of tiles whose spans are attended to by themselves."""
_CODED_TILES = ((64, 2, 2, 656), (32, 2, 2, 352))
"""With four warps or more Triton takes wgmma, and multiplies codes in another order."""
MOST_ITEMS = 8192
"""Spans that are attended to at once: each takes as much room as a float32 row of queries."""
_MANY_PROGRAMS = 128


def can_attend(dtype: torch.dtype, layout: object, num_heads: int, num_groups: int) -> bool:
    """bfloat16 or int8 by position; heads whose size the products and every GPU's memory take."""
    if not isinstance(layout, PlainLayout | Int8Layout) or dtype != torch.bfloat16:
        return False
    if layout.dtype not in (torch.bfloat16, torch.int8):
        return False
    head_dim = layout.head_dim
    return (
        num_heads // num_groups <= _CHUNK_TILES[-1][0]
        and 16 <= head_dim <= 256
        and not head_dim & head_dim - 1
    )


def scales_of(pages: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The memory of int8 pages as float32, in which their scales are; other pages as they are."""
    keys, values = pages
    if keys.dtype != torch.int8:
        return keys, values
    return keys.view(torch.float32), values.view(torch.float32)


@dataclass(frozen=True)
class DecodeRows:
    """Rows of one query each, cut into items: a row's spans of positions, one after another."""

    tables: Tensor  # blocks of all rows
    table_of_row_B: Tensor  # int64: where a row's begin
    lens_B: Tensor  # 0: a row that attends to nothing
    row_of_item_I: Tensor  # -1: no item
    first_item_B: Tensor

    @classmethod
    def of(cls, tables_BW: Tensor, lens_B: Tensor, device: torch.device) -> "DecodeRows":
        """From the host."""
        num_rows, width = tables_BW.shape
        row_B, spans_B = np.arange(num_rows), -(-lens_B.numpy() // paged.SPAN.value)
        made = (row_B * width, np.repeat(row_B, spans_B), np.cumsum(spans_B) - spans_B)
        starts_B, items_I, first_B = (torch.from_numpy(one).to(device) for one in made)
        return cls(tables_BW.contiguous().to(device), starts_B, lens_B.to(device), items_I, first_B)


@dataclass(frozen=True)
class TileRows:
    """Rows of any sequences in tiles: a tile's rows are neighbours, and of one sequence."""

    tables: Tensor  # blocks of all sequences
    items_4I: Tensor  # see paged.tile_spans
    lens_T: Tensor  # positions that each row sees; 0: it attends to nothing
    first_place_T: Tensor  # of a row, among the rows of all items


def decode_runs(
    tables_BW: Tensor, lens_B: Tensor, device: torch.device
) -> list[tuple[slice, DecodeRows]]:
    """Rows that are attended to together: at most MOST_ITEMS items, or one row."""
    items_B = -(-lens_B.numpy() // paged.SPAN.value)
    runs, first, items = [], 0, 0
    for row, count in enumerate(items_B):
        if row > first and items + count > MOST_ITEMS:
            runs.append(slice(first, row))
            first, items = row, 0
        items += count
    if len(items_B):
        runs.append(slice(first, len(items_B)))
    return [(run, DecodeRows.of(tables_BW[run], lens_B[run], device)) for run in runs]


class CudaAttention:
    """Pages are read where they lie."""

    name = "the CUDA kernel"
    is_invariant = True
    reads_unwritten = False

    def __init__(self, cache: KvPages, num_heads: int, num_groups: int):
        self._cache, self._num_groups = cache, num_groups
        self._heads = num_heads // num_groups
        self._room_bytes = shared_memory_bytes(cache.pages(0)[0].device)

    def plan(self, meta: StepMeta) -> AttendPages:
        """Best from the host, where it has to look at lengths."""
        device = self._cache.pages(0)[0].device
        decode = decode_runs(meta.decode_tables_BW.cpu(), meta.decode_lens_B.cpu(), device)
        chunks = [chunk.to(device) for chunk in meta.chunks]

        def attend(layer_idx: int, q_THP: Tensor) -> Tensor:
            out_THP = torch.empty_like(q_THP)
            for run, rows in decode:
                self.decode(layer_idx, q_THP[run], rows, out_THP[run])
            for chunk in chunks:
                self._chunk(layer_idx, q_THP[chunk.rows], chunk, out_THP[chunk.rows])
            return out_THP.flatten(1)

        return attend

    def of_rows(self, rows: DecodeRows) -> AttendPages:
        """What attends in every layer of a step that has these rows only."""

        def attend(layer_idx: int, q_THP: Tensor) -> Tensor:
            out_THP = torch.empty_like(q_THP)
            self.decode(layer_idx, q_THP, rows, out_THP)
            return out_THP.flatten(1)

        return attend

    def decode(self, layer_idx: int, q_THP: Tensor, rows: DecodeRows, out_THP: Tensor) -> None:
        """Of the first rows of `q_THP`, to the same rows of `out_THP`."""
        num_rows, num_items = rows.lens_B.shape[0], rows.row_of_item_I.shape[0]
        _, num_heads, head_dim = q_THP.shape
        pages = self._cache.pages(layer_idx)
        maxima, sums = (torch.empty((num_items, num_heads), device=q_THP.device) for _ in range(2))
        means = torch.empty((num_items, num_heads, head_dim), device=q_THP.device)
        queries = max(_DECODE_QUERIES, power_of_two(self._heads))
        launch(
            paged.decode_spans, (num_items, self._num_groups),
            q_THP, *pages, *scales_of(pages), rows.tables, rows.table_of_row_B, rows.lens_B,
            rows.row_of_item_I, rows.first_item_B, maxima, sums, means,
            paged.LOG2_E / math.sqrt(head_dim), pages[0].stride(0), self._num_groups,
            BLOCK=self._cache.block_size, CODED=pages[0].dtype == torch.int8,
            HEADS=self._heads, M=queries, P=head_dim,
            num_warps=2, num_stages=2,
        )  # fmt: skip
        launch(
            paged.add_spans, (num_rows, num_heads),
            maxima, sums, means, rows.lens_B, rows.first_item_B, out_THP, num_heads,
            P=head_dim, APART=1, num_warps=1,
        )  # fmt: skip

    @property
    def tile_rows(self) -> int:
        """Rows of a tile at most."""
        return _TILE_QUERIES // self._heads

    def of_tiles(self, tiles: TileRows) -> AttendPages:
        """What attends in every layer of a step with these rows, however long their contexts are.

        As many programs as there are spans share a chunk: faster where rows are few.
        """

        def attend(layer_idx: int, q_THP: Tensor) -> Tensor:
            num_items, (num_rows, num_heads, head_dim) = tiles.items_4I.shape[1], q_THP.shape
            pages, shape = self._cache.pages(layer_idx), (num_items, self.tile_rows, num_heads)
            maxima, sums = (torch.empty(shape, device=q_THP.device) for _ in range(2))
            means = torch.empty((*shape, head_dim), device=q_THP.device)
            launch(
                paged.tile_spans, (num_items, self._num_groups),
                q_THP, *pages, *scales_of(pages), tiles.tables, tiles.items_4I, num_items,
                tiles.lens_T, maxima, sums, means,
                paged.LOG2_E / math.sqrt(head_dim), pages[0].stride(0), self._num_groups,
                BLOCK=self._cache.block_size, CODED=pages[0].dtype == torch.int8,
                HEADS=self._heads, M=_TILE_QUERIES, P=head_dim,
                num_warps=2, num_stages=2,
            )  # fmt: skip
            out_THP = torch.empty_like(q_THP)
            launch(
                paged.add_spans, (num_rows, num_heads),
                maxima, sums, means, tiles.lens_T, tiles.first_place_T, out_THP, num_heads,
                P=head_dim, APART=self.tile_rows, num_warps=1,
            )  # fmt: skip
            return out_THP.flatten(1)

        return attend

    def _chunk(self, layer_idx: int, q_THP: Tensor, chunk: ChunkMeta, out_THP: Tensor) -> None:
        num_rows, head_dim = q_THP.shape[0], q_THP.shape[2]
        pages = self._cache.pages(layer_idx)
        queries, warps, stages = self._chunk_tile(num_rows, head_dim)
        tiles = -(-num_rows // (queries // self._heads))
        launch(
            paged.attend_chunk, (tiles, self._num_groups),
            q_THP, *pages, *scales_of(pages), chunk.block_table_W, out_THP,
            chunk.num_cached - num_rows, num_rows,
            paged.LOG2_E / math.sqrt(head_dim), pages[0].stride(0), self._num_groups,
            BLOCK=self._cache.block_size, CODED=pages[0].dtype == torch.int8,
            HEADS=self._heads, M=queries, P=head_dim,
            num_warps=warps, num_stages=stages,
        )  # fmt: skip

    def _chunk_tile(self, num_rows: int, head_dim: int) -> tuple[int, int, int]:
        """Queries, warps and stages: the largest tile that leaves no processor idle."""
        coded = self._cache.pages(0)[0].dtype == torch.int8
        tiles = _CODED_TILES if coded else _CHUNK_TILES
        for queries, warps, stages, bytes_of_number in tiles[:-1]:
            programs = -(-num_rows // (queries // self._heads)) * self._num_groups
            if programs >= _MANY_PROGRAMS and bytes_of_number * head_dim <= self._room_bytes:
                return queries, warps, stages
        return tiles[-1][:3]
