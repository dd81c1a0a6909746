"""Decode steps as CUDA graphs: one for each number of rows and spans of context, made at need."""

import logging
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from moe_model.kernels.cuda.attention import CudaAttention
from moe_model.kernels.cuda.model import Computed, CudaModel, Span, on_host
from moe_model.kernels.cuda.nobody import decode_sizes
from moe_model.kernels.cuda.step_numbers import ROWS, Shape, StepNumbers, shape_of
from moe_model.maths.step_meta import StepMeta

log = logging.getLogger(__name__)

MOST_GRAPHS = 64


@dataclass(frozen=True)
class Captured:
    graph: torch.cuda.CUDAGraph
    computed: Computed


class DecodeGraphs:
    """Of one model. Elsewhere than on a CUDA device nothing is captured."""

    def __init__(self, model: CudaModel, attention: CudaAttention):
        device = model.outer.embedding_VD.device
        self._model, self._attention, self._device = model, attention, device
        self._captures = device.type == "cuda"
        self._numbers = StepNumbers(model.steps.cache.pages(0)[0].shape[0], device)
        self._logits_BV = torch.empty((ROWS[-1], model.config.vocab_size), device=device)
        self._graphs: OrderedDict[Shape, Captured] = OrderedDict()
        self._pool_bytes = 0
        if self._captures:
            self._stream = torch.cuda.Stream(device)
            self._pool = torch.cuda.graph_pool_handle()

    def warm_up(self, most_rows: int, num_controls: int) -> Iterator[int]:
        """See WholeSteps. Rows of no slot and no length: nothing is stored, no expert is read."""
        sizes = decode_sizes(most_rows)
        shapes = [Shape(rows, max(rows, 2), n) for rows in sizes for n in (0, num_controls)]
        for left, shape in enumerate(reversed(shapes)):
            yield len(shapes) - left
            self._numbers.send_nobody(shape)
            if self._captures:
                self._replay(shape)
                torch.cuda.synchronize()
            else:
                self._compute(shape)
        log.info("%d graphs share %.0f MB", len(self._graphs), self._pool_bytes / 1e6)

    def start(self, meta: StepMeta, controls: np.ndarray | None) -> Computed | None:
        """None: more rows or spans than graphs are made for."""
        shape = shape_of(meta, 0 if controls is None else len(controls))
        if shape is None or meta.logit_rows_B.shape[0] != meta.num_rows:
            return None
        span = Span.begin(self._device)
        self._numbers.send(meta, controls, shape)
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
        given = self._numbers.given(shape)

        def attend(layer_idx: int, q_THP: Tensor) -> Tensor:
            out_THP = torch.empty_like(q_THP)
            self._attention.decode(layer_idx, q_THP, given.decode, out_THP)
            return out_THP.flatten(1)

        step = self._model.hidden(given.ids_T, given.positions_T, given.slots_T, attend)
        logits_BV = self._logits_BV[: shape.rows]
        picked_B = self._model.logits(step.hidden_TD, given.controls, logits_BV)
        return Computed(step.hidden_TD, logits_BV, on_host(picked_B), on_host(step.ids_LTK), None)
