"""What does a short step with chunks tell the device? Numbers in one copy, as a graph reads them.

Its rows are cut into tiles of neighbours of one sequence, a decoded row by itself. Rows are filled
up with rows of no slot and no length, items with ones of no row.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from moe_model.kernels.cuda.attention import MOST_ITEMS, TileRows
from moe_model.kernels.cuda.paged import SPAN
from moe_model.maths.step_meta import StepMeta

TILED_ROWS = (16, 32, 64, 128, 256)
"""Of the graphs. Beyond, launching the kernels takes less time than they do."""
COLUMNS, SLOT = 5, 2
"""Token ids, positions, slots, lengths, and the place of a row's first sums."""
ITEM_NUMBERS = 4
SPANS_OF_ROW = 32
"""For which there is room if all rows are tiles of their own."""


@dataclass(frozen=True)
class TiledShape:
    """Rows and items of a graph."""

    rows: int
    items: int

    @property
    def num_numbers(self) -> int:
        """Before the tables."""
        return COLUMNS * self.rows + ITEM_NUMBERS * self.items


def tiled_shapes(tile_rows: int, most_rows: int = TILED_ROWS[-1]) -> list[TiledShape]:
    """For steps of so many rows, by size. As many sums are there at once as in decode steps."""
    most_items = MOST_ITEMS // tile_rows // 16 * 16
    largest = next((rows for rows in TILED_ROWS if rows >= most_rows), TILED_ROWS[-1])
    return [
        TiledShape(rows, min(most_items, rows * SPANS_OF_ROW))
        for rows in TILED_ROWS
        if rows <= largest
    ]


@dataclass(frozen=True)
class Tiles:
    """Of a step's rows, in their order."""

    first_T: np.ndarray
    counts_T: np.ndarray
    tables_T: np.ndarray
    """Where each one's table begins."""
    spans_T: np.ndarray
    tables: np.ndarray
    """One after the other."""

    @classmethod
    def of(cls, meta: StepMeta, tile_rows: int) -> "Tiles":
        num_decode, width = meta.num_decode, meta.decode_tables_BW.shape[1]
        first, tables = [np.arange(num_decode)], [meta.decode_tables_BW.numpy().reshape(-1)]
        counts, begins = [np.ones(num_decode, np.int64)], [np.arange(num_decode) * width]
        size = num_decode * width
        for chunk in meta.chunks:
            rows = np.arange(chunk.rows.start, chunk.rows.stop, tile_rows)
            first.append(rows)
            counts.append(np.minimum(tile_rows, chunk.rows.stop - rows))
            begins.append(np.full(len(rows), size))
            tables.append(chunk.block_table_W.numpy())
            size += len(tables[-1])
        first_T, counts_T = np.concatenate(first), np.concatenate(counts)
        last_T = meta.positions_T.numpy()[first_T + counts_T - 1]
        return cls(
            first_T, counts_T, np.concatenate(begins), last_T // SPAN.value + 1,
            np.concatenate(tables),
        )  # fmt: skip

    def write(self, meta: StepMeta, tile_rows: int, shape: TiledShape, out: np.ndarray) -> int:
        """As the shape's graph reads them; returns how many there are.

        Args:
            out: int64.
        """
        num_rows, num_items = meta.num_rows, int(self.spans_T.sum())
        columns = out[: COLUMNS * shape.rows].reshape(COLUMNS, shape.rows)
        columns[:] = np.array([0, 0, -1, 0, 0])[:, None]
        columns[0, :num_rows] = meta.token_ids_T.numpy()
        columns[1, :num_rows] = meta.positions_T.numpy()
        columns[2, :num_rows] = meta.slot_mapping_T.numpy()
        columns[3, :num_rows] = columns[1, :num_rows] + 1
        first_item_T = np.cumsum(self.spans_T) - self.spans_T
        places_T = np.repeat(first_item_T * tile_rows - self.first_T, self.counts_T)
        columns[4, :num_rows] = places_T + np.arange(num_rows)
        items = out[COLUMNS * shape.rows : shape.num_numbers].reshape(ITEM_NUMBERS, shape.items)
        items[0, num_items:] = -1
        of_tiles = np.stack([self.first_T, self.counts_T, self.tables_T, -first_item_T])
        items[:, :num_items] = np.repeat(of_tiles, self.spans_T, axis=1)
        items[3, :num_items] += np.arange(num_items)
        stop = shape.num_numbers + len(self.tables)
        out[shape.num_numbers : stop] = self.tables
        return stop


@dataclass(frozen=True)
class GivenTiles:
    """A shape's numbers on the device, where its graph reads them."""

    ids_T: Tensor
    positions_T: Tensor
    slots_T: Tensor
    tiles: TileRows


class TileNumbers:
    """Room for a step's numbers: one copy on the host, one on the device."""

    def __init__(self, tile_rows: int, num_blocks: int, device: torch.device):
        """`num_blocks`: of the KV cache; no sequence's table has more."""
        self._tile_rows, self._shapes = tile_rows, tiled_shapes(tile_rows)
        # A warm-up's sequence has as many blocks as rows.
        room = self._shapes[-1].num_numbers + TILED_ROWS[-1] * max(num_blocks, 1)
        self._host = torch.empty(room, dtype=torch.int64, pin_memory=device.type == "cuda")
        self._device = torch.empty(room, dtype=torch.int64, device=device)

    def send(self, meta: StepMeta) -> TiledShape | None:
        """The smallest shape that holds a step, without waiting: the last one must have ended.

        None: there is none, or the step has no chunk.
        """
        if meta.is_decode or meta.num_rows > TILED_ROWS[-1]:
            return None
        tiles = Tiles.of(meta, self._tile_rows)
        num_items = int(tiles.spans_T.sum())
        for shape in self._shapes:
            if shape.rows >= meta.num_rows and shape.items >= num_items:
                count = tiles.write(meta, self._tile_rows, shape, self._host.numpy())
                self._device[:count].copy_(self._host[:count], non_blocking=True)
                return shape
        return None

    def given(self, shape: TiledShape) -> GivenTiles:
        columns = self._device[: COLUMNS * shape.rows].view(COLUMNS, shape.rows)
        ids_T, positions_T, slots_T, lens_T, first_place_T = columns
        items = self._device[COLUMNS * shape.rows : shape.num_numbers]
        tables = self._device[shape.num_numbers :]
        tiles = TileRows(tables, items.view(ITEM_NUMBERS, -1), lens_T, first_place_T)
        return GivenTiles(ids_T, positions_T, slots_T, tiles)
