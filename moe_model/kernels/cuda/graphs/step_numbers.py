"""What does a decode step tell the device? Numbers in one copy, filled up to a graph's sizes.

Rows are filled up with rows of no slot and no length, spans of context with items of no row.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from moe_model.kernels.cuda.attention import MOST_ITEMS, DecodeRows
from moe_model.kernels.cuda.paged import SPAN
from moe_model.maths.step_meta import StepMeta

ROWS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128)
MOST_CONTROLS = 8
COLUMNS, SLOT = 6, 2
"""Token ids, positions, slots, lengths, where the row's table begins, and its first item."""


@dataclass(frozen=True)
class Shape:
    """Rows and items of a graph."""

    rows: int
    items: int
    controls: int = 0
    """Numbers by which a row's token is picked."""

    @property
    def row_stride(self) -> int:
        """Of the columns: none begins at an odd number, so that kernels are compiled once."""
        return max(2, self.rows)

    @property
    def num_numbers(self) -> int:
        """Before the tables."""
        return (COLUMNS + self.controls) * self.row_stride + self.items


def shape_of(meta: StepMeta, num_controls: int = 0, *, growth: int = 2) -> Shape | None:
    """The smallest that holds the step; None: no graph does.

    Args:
        growth: from one number of items to the next.
    """
    num_rows = meta.num_rows
    if not meta.is_decode or num_rows > ROWS[-1]:
        return None
    items = int(np.ceil(meta.decode_lens_B.numpy() / SPAN.value).sum())
    rows = next(rows for rows in ROWS if rows >= num_rows)
    room = max(rows, 2)
    while room < items:
        room *= growth
    return Shape(rows, min(room, MOST_ITEMS), num_controls) if items <= MOST_ITEMS else None


def write_numbers(
    meta: StepMeta, controls: np.ndarray | None, shape: Shape, out: np.ndarray
) -> int:
    """A step's numbers as its graph reads them; returns how many there are.

    Args:
        controls: float64 [shape.controls, B], whose bits are written.
        out: int64.
    """
    num_rows, stride = meta.num_rows, shape.row_stride
    lens_B, tables_BW = meta.decode_lens_B.numpy(), meta.decode_tables_BW.numpy()
    spans_B = -(-lens_B // SPAN.value)
    columns = out[: COLUMNS * stride].reshape(COLUMNS, stride)
    columns[:] = np.array([0, 0, -1, 0, 0, 0])[:, None]
    columns[0, :num_rows] = meta.token_ids_T.numpy()
    columns[1, :num_rows] = meta.positions_T.numpy()
    columns[2, :num_rows] = meta.slot_mapping_T.numpy()
    columns[3, :num_rows] = lens_B
    columns[4, :num_rows] = np.arange(num_rows) * tables_BW.shape[1]
    columns[5, :num_rows] = np.cumsum(spans_B) - spans_B
    if controls is not None:
        given = out[COLUMNS * stride : (COLUMNS + shape.controls) * stride].view(np.float64)
        given = given.reshape(shape.controls, stride)
        given[:] = 1.0
        given[:, :num_rows] = controls
    items = out[shape.num_numbers - shape.items : shape.num_numbers]
    items[:] = -1
    used = np.repeat(np.arange(num_rows), spans_B)
    items[: len(used)] = used
    stop = shape.num_numbers + tables_BW.size
    out[shape.num_numbers : stop] = tables_BW.reshape(-1)
    return stop


@dataclass(frozen=True)
class Given:
    """A shape's numbers on the device, where its graph reads them."""

    ids_T: Tensor
    """Below 0: see WholeSteps.start."""
    positions_T: Tensor
    slots_T: Tensor
    decode: DecodeRows
    controls: Tensor | None


class StepNumbers:
    """Room for a step's numbers: one copy on the device, and two on the host, of which one may be
    on its way while the next is written.
    """

    def __init__(self, num_blocks: int, device: torch.device):
        """`num_blocks`: of the KV cache; no row's table has more."""
        room = Shape(ROWS[-1], MOST_ITEMS, MOST_CONTROLS).num_numbers + ROWS[-1] * num_blocks
        pin = device.type == "cuda"
        self._hosts = [torch.empty(room, dtype=torch.int64, pin_memory=pin) for _ in range(2)]
        self._device = torch.empty(room, dtype=torch.int64, device=device)

    def send(self, meta: StepMeta, controls: np.ndarray | None, shape: Shape) -> None:
        """Without waiting: the step before the last must have ended."""
        self._hosts.reverse()
        host = self._hosts[0]
        count = write_numbers(meta, controls, shape, host.numpy())
        self._device[:count].copy_(host[:count], non_blocking=True)

    def send_nobody(self, shape: Shape) -> None:
        """Rows of no slot and no length only."""
        host = self._hosts[0][: shape.num_numbers]
        host.zero_()
        host[: COLUMNS * shape.row_stride].view(COLUMNS, -1)[SLOT] = -1
        host[shape.num_numbers - shape.items :] = -1
        self._device[: shape.num_numbers].copy_(host)

    def given(self, shape: Shape) -> Given:
        numbers = self._device
        columns = numbers[: COLUMNS * shape.row_stride].view(COLUMNS, -1)[:, : shape.rows]
        ids_T, positions_T, slots_T, lens_B, table_of_row_B, first_item_B = columns
        items_I = numbers[shape.num_numbers - shape.items : shape.num_numbers]
        tables = numbers[shape.num_numbers :]
        controls = None
        if shape.controls:
            bits = numbers[COLUMNS * shape.row_stride : shape.num_numbers - shape.items]
            controls = bits.view(torch.float64).view(shape.controls, -1)[:, : shape.rows]
        decode = DecodeRows(tables, table_of_row_B, lens_B, items_I, first_item_B)
        return Given(ids_T, positions_T, slots_T, decode, controls)
