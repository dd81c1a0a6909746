"""Rows of decoded sequences and of chunks in tiles: their numbers, and their attention's bits."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from attention_svc.kv.cache import KvCache
from moe_model.kernels.cuda.attention import MOST_ITEMS, CudaAttention
from moe_model.kernels.cuda.backend import CudaBackend
from moe_model.kernels.cuda.graphs import tile_numbers as numbers
from moe_model.kernels.cuda.graphs.tile_numbers import (
    COLUMNS,
    TILED_ROWS,
    TiledShape,
    TileNumbers,
    Tiles,
    tiled_shapes,
)
from moe_model.maths.step_meta import ChunkMeta, StepMeta

BLOCK, NUM_BLOCKS = 16, 40
SMALL = TiledShape(rows=16, items=16)


def mixed(decoded: list[int], chunks: list[tuple[int, int]]) -> StepMeta:
    """Rows at `decoded` positions of a sequence each, then chunks (start, stop); random blocks."""
    generator = torch.Generator().manual_seed(3)
    tables = [
        torch.randperm(NUM_BLOCKS, generator=generator)
        for _ in range(len(decoded) + len(chunks))
    ]  # fmt: skip
    positions, made, row = list(decoded), [], len(decoded)
    for table, (start, stop) in zip(tables[len(decoded) :], chunks, strict=True):
        made.append(
            ChunkMeta(
                rows=slice(row, row + stop - start),
                positions_T=torch.arange(start, stop),
                block_table_W=table[: -(-stop // BLOCK)],
                num_cached=stop,
            )
        )
        positions += range(start, stop)
        row += stop - start
    positions_T = torch.tensor(positions)
    decode_tables_BW = (
        torch.stack(tables[: len(decoded)]) if decoded else torch.zeros((0, 0)).long()
    )
    return StepMeta(
        token_ids_T=positions_T + 100,
        positions_T=positions_T,
        slot_mapping_T=positions_T + 200,
        num_decode=len(decoded),
        decode_tables_BW=decode_tables_BW,
        decode_lens_B=positions_T[: len(decoded)] + 1,
        chunks=tuple(made),
        logit_rows_B=positions_T[:0],
        open_rows_C=positions_T[:0],
        is_decode=not chunks,
    )


def attention_of(device: torch.device, kv_dtype: str, heads: int) -> CudaAttention:
    config = SimpleNamespace(num_heads=heads, num_kv_heads=2, head_dim=16, kv_size=32)
    backend = CudaBackend(torch.bfloat16, device)
    layout: Any = backend.kv_layout(kv_dtype, config, BLOCK)  # type: ignore[arg-type]
    cache = KvCache(layout, num_layers=1, num_blocks=NUM_BLOCKS, block_size=BLOCK, device=device)
    shape = (NUM_BLOCKS * BLOCK, 2, 16)
    generator = torch.Generator().manual_seed(1)
    keys, values = (torch.randn(shape, generator=generator).bfloat16() for _ in range(2))
    cache.store(0, keys.to(device), values.to(device), torch.arange(shape[0], device=device))
    return CudaAttention(cache, heads, 2)


def tiled(attention: CudaAttention, meta: StepMeta, queries: Tensor) -> Tensor:
    """Of a step's rows, filled up to a shape's."""
    sent = TileNumbers(attention.tile_rows, NUM_BLOCKS, queries.device)
    shape = sent.send(meta)
    assert shape is not None
    filled = queries.new_zeros((shape.rows, *queries.shape[1:]))
    filled[: len(queries)] = queries
    found = attention.of_tiles(sent.given(shape).tiles)(0, filled)
    assert not found[len(queries) :].any()
    return found[: len(queries)]


FEW = ([], [(255, 258)])
MANY = ([300, 0, 256], [(0, 3), (510, 517)])
slow = pytest.mark.slow  # in the interpreter


@pytest.mark.parametrize(
    ("kv_dtype", "heads", "decoded", "chunks"),
    [
        ("bf16", 2, *FEW),
        ("int8", 2, *FEW),
        pytest.param("bf16", 12, *MANY, marks=slow),
        pytest.param("int8", 12, *MANY, marks=slow),
    ],
)
def test_tiles_have_the_bits_of_chunks_and_decoded_rows(
    device: torch.device,
    monkeypatch: pytest.MonkeyPatch,
    kv_dtype: str,
    heads: int,
    decoded: list[int],
    chunks: list[tuple[int, int]],
) -> None:
    monkeypatch.setattr(numbers, "tiled_shapes", lambda _: [SMALL])
    attention = attention_of(device, kv_dtype, heads)
    assert attention.tile_rows == 64 // heads
    meta = mixed(decoded, chunks)
    queries = torch.randn((meta.num_rows, heads, 16)).bfloat16().to(device)
    expected = attention.plan(meta)(0, queries)
    assert expected.isfinite().all()
    assert torch.equal(tiled(attention, meta, queries), expected)


def test_tiles_and_their_spans_are_written_as_a_graph_reads_them() -> None:
    meta = mixed([300, 5], [(250, 260)])
    out = np.full(400, 99, dtype=np.int64)
    tiles = Tiles.of(meta, tile_rows=4)
    count = tiles.write(meta, 4, SMALL, out)
    columns = out[: COLUMNS * 16].reshape(COLUMNS, 16)
    assert columns[0].tolist() == [400, 105, *range(350, 360), 0, 0, 0, 0]
    assert columns[2].tolist() == [500, 205, *range(450, 460), -1, -1, -1, -1]
    assert columns[3].tolist() == [301, 6, *range(251, 261), 0, 0, 0, 0]
    # Two spans of the first row, one of the second; tiles of 4, 4 and 2 rows with 1, 2 and 2.
    items = out[COLUMNS * 16 : SMALL.num_numbers].reshape(4, 16)
    assert items[:, :8].T.tolist() == [
        [0, 1, 0, 0], [0, 1, 0, 1], [1, 1, 40, 0],
        [2, 4, 80, 0], [6, 4, 80, 0], [6, 4, 80, 1], [10, 2, 80, 0], [10, 2, 80, 1],
    ]  # fmt: skip
    assert set(items[0, 8:].tolist()) == {-1}
    assert columns[4, :12].tolist() == [0, 8, 12, 13, 14, 15, 16, 17, 18, 19, 24, 25]
    tables = [*meta.decode_tables_BW.flatten().tolist(), *meta.chunks[0].block_table_W.tolist()]
    assert out[SMALL.num_numbers : count].tolist() == tables
    assert out[count] == 99


def test_a_step_gets_the_smallest_shape_that_holds_its_rows_and_spans() -> None:
    sent = TileNumbers(5, NUM_BLOCKS, torch.device("cpu"))
    assert sent.send(mixed([], [(0, 9)])) == TiledShape(16, 512)
    assert sent.send(mixed([], [(0, 17)])) == TiledShape(32, 1024)
    assert sent.send(mixed([], [(0, 256)])) == TiledShape(256, 1632)
    assert sent.send(mixed([], [(0, 257)])) is None
    assert sent.send(mixed([5], [])) is None, "decode steps have graphs of their own"
    one = mixed([], [(0, 2)])
    long = replace(one, positions_T=one.positions_T + 256 * 600)
    assert sent.send(long) == TiledShape(32, 1024)
    assert sent.send(replace(one, positions_T=one.positions_T + 256 * 1632)) is None


@pytest.mark.parametrize("tile_rows", [1, 5, 32])
def test_sums_of_all_items_take_no_more_memory_than_in_decode_steps(tile_rows: int) -> None:
    shapes = tiled_shapes(tile_rows)
    assert [shape.rows for shape in shapes] == list(TILED_ROWS)
    assert max(shape.items for shape in shapes) * tile_rows <= MOST_ITEMS
    assert all(shape.items % 16 == 0 for shape in shapes), "or kernels are compiled again"
    assert [shape.rows for shape in tiled_shapes(tile_rows, 40)] == [16, 32, 64]
