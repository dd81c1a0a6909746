"""Decode steps as CUDA graphs: one for each number of rows and of spans of context, made at need.

A step's numbers travel in one copy. Rows are filled up to the graph's with rows of no slot and no
length, spans with items of no row.
"""

import logging
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from moe_model.kernels.cuda.attention import CudaAttention, DecodeRows
from moe_model.kernels.cuda.model import Computed, CudaModel, Span, on_host
from moe_model.kernels.cuda.paged import SPAN
from moe_model.maths.step_meta import StepMeta

log = logging.getLogger(__name__)

ROWS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128)
MOST_ITEMS = 8192
"""Each takes as much working room as a float32 row of queries."""
MOST_GRAPHS = 64
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


def shape_of(meta: StepMeta, num_controls: int = 0) -> Shape | None:
    """The smallest that holds the step; None: no graph does."""
    num_rows = meta.num_rows
    if not meta.is_decode or meta.logit_rows_B.shape[0] != num_rows or num_rows > ROWS[-1]:
        return None
    items = int(np.ceil(meta.decode_lens_B.numpy() / SPAN.value).sum())
    rows = next(rows for rows in ROWS if rows >= num_rows)
    room = max(rows, 2)
    while room < items:
        room *= 2
    return Shape(rows, room, num_controls) if room <= MOST_ITEMS else None


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
class Captured:
    graph: torch.cuda.CUDAGraph
    computed: Computed


class DecodeGraphs:
    """Of one model. Elsewhere than on a CUDA device nothing is captured."""

    def __init__(self, model: CudaModel, attention: CudaAttention):
        device = model.outer.embedding_VD.device
        self._model, self._attention = model, attention
        self._captures = device.type == "cuda"
        num_blocks = model.steps.cache.pages(0)[0].shape[0]
        room = Shape(ROWS[-1], MOST_ITEMS, MOST_CONTROLS).num_numbers + ROWS[-1] * num_blocks
        self._host = torch.empty(room, dtype=torch.int64, pin_memory=self._captures)
        self._numbers = torch.empty(room, dtype=torch.int64, device=device)
        self._logits_BV = torch.empty((ROWS[-1], model.config.vocab_size), device=device)
        self._graphs: OrderedDict[Shape, Captured] = OrderedDict()
        self._pool_bytes = 0
        if self._captures:
            self._stream = torch.cuda.Stream(device)
            self._pool = torch.cuda.graph_pool_handle()

    def warm_up(self, most_rows: int, num_controls: int) -> Iterator[int]:
        """See WholeSteps. Rows of no slot and no length: nothing is stored, no expert is read."""
        largest = next((rows for rows in ROWS if rows >= most_rows), ROWS[-1])
        sizes = [rows for rows in ROWS if rows <= largest]
        shapes = [Shape(rows, max(rows, 2), n) for rows in sizes for n in (0, num_controls)]
        for left, shape in enumerate(reversed(shapes)):
            yield len(shapes) - left
            self._host[: shape.num_numbers] = 0
            columns = self._host[: COLUMNS * shape.row_stride].view(COLUMNS, -1)
            columns[SLOT] = -1
            self._host[shape.num_numbers - shape.items : shape.num_numbers] = -1
            self._numbers[: shape.num_numbers].copy_(self._host[: shape.num_numbers])
            if self._captures:
                self._replay(shape)
                torch.cuda.synchronize()
            else:
                self._compute(shape)
        log.info("%d graphs share %.0f MB", len(self._graphs), self._pool_bytes / 1e6)

    def start(self, meta: StepMeta, controls: np.ndarray | None) -> Computed | None:
        """None: more rows or spans than graphs are made for."""
        shape = shape_of(meta, 0 if controls is None else len(controls))
        if shape is None:
            return None
        count = write_numbers(meta, controls, shape, self._host.numpy())
        span = Span.begin(self._numbers.device)
        self._numbers[:count].copy_(self._host[:count], non_blocking=True)
        computed = self._replay(shape) if self._captures else self._compute(shape)
        if span is not None:
            span.stop.record()
        rows = slice(0, meta.num_rows)
        return Computed(
            computed.hidden_TD[rows],
            computed.logits_BV[rows],
            computed.picked_B[rows],
            computed.ids_LTK[:, rows],
            span,
        )

    def _replay(self, shape: Shape) -> Computed:
        captured = self._graphs.get(shape)
        if captured is None:
            captured = self._graphs[shape] = self._capture(shape)
            if len(self._graphs) > MOST_GRAPHS:
                self._graphs.popitem(last=False)
        self._graphs.move_to_end(shape)
        captured.graph.replay()
        return captured.computed

    def _capture(self, shape: Shape) -> Captured:
        """Runs the step once before: nothing may be compiled or loaded during the capture."""
        self._compute(shape)
        torch.cuda.synchronize()
        before_bytes = torch.cuda.memory_reserved()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(
            graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
        ):
            computed = self._compute(shape)
        self._pool_bytes += torch.cuda.memory_reserved() - before_bytes
        log.debug("a graph for %d rows and %d spans", shape.rows, shape.items)
        return Captured(graph, computed)

    def _compute(self, shape: Shape) -> Computed:
        numbers = self._numbers
        columns = numbers[: COLUMNS * shape.row_stride].view(COLUMNS, -1)[:, : shape.rows]
        ids_T, positions_T, slots_T, lens_B, table_of_row_B, first_item_B = columns
        items_I = numbers[shape.num_numbers - shape.items : shape.num_numbers]
        tables = numbers[shape.num_numbers :]
        rows = DecodeRows(tables, table_of_row_B, lens_B, items_I, first_item_B)

        def attend(layer_idx: int, q_THP: Tensor) -> Tensor:
            out_THP = torch.empty_like(q_THP)
            self._attention.decode(layer_idx, q_THP, rows, out_THP)
            return out_THP.flatten(1)

        step = self._model.hidden(ids_T, positions_T, slots_T, attend)
        logits_BV = self._logits_BV[: shape.rows]
        controls = None
        if shape.controls:
            given = numbers[COLUMNS * shape.row_stride : shape.num_numbers - shape.items]
            controls = given.view(torch.float64).view(shape.controls, -1)[:, : shape.rows]
        picked_B = self._model.logits(step.hidden_TD, controls, logits_BV)
        return Computed(step.hidden_TD, logits_BV, on_host(picked_B), on_host(step.ids_LTK), None)
