"""Decode steps as CUDA graphs: one for each number of rows and spans of context, made at need."""

import logging
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from moe_model.kernels.cuda.attention import CudaAttention
from moe_model.kernels.cuda.graphs.captures import Captures
from moe_model.kernels.cuda.graphs.nobody import decode_sizes
from moe_model.kernels.cuda.graphs.results import Results
from moe_model.kernels.cuda.graphs.step_numbers import ROWS, Shape, StepNumbers, shape_of
from moe_model.kernels.cuda.model import Computed, CudaModel, DeviceTime
from moe_model.maths.step_meta import StepMeta

log = logging.getLogger(__name__)

MOST_GRAPHS = 160
"""More than there are up to 64 rows and 32,768 positions."""


@dataclass(frozen=True)
class Captured:
    graph: torch.cuda.CUDAGraph
    computed: Computed


class DecodeGraphs:
    """Of one model. `captures`: None elsewhere than on a CUDA device, where nothing is captured."""

    def __init__(self, model: CudaModel, attention: CudaAttention, captures: Captures | None):
        device = model.outer.embedding_VD.device
        self._model, self._attention, self._device = model, attention, device
        self._captures = captures
        self._numbers = StepNumbers(model.steps.cache.pages(0)[0].shape[0], device)
        self._logits_BV = torch.empty((ROWS[-1], model.config.vocab_size), device=device)
        self._picks_B = torch.zeros(ROWS[-1], dtype=torch.int64, device=device)
        """Of the last step, where the next one finds them."""
        self._results = Results(device)
        self._graphs: OrderedDict[Shape, Captured] = OrderedDict()

    def warm_up(self, most_rows: int, num_controls: int) -> Iterator[int]:
        """See WholeSteps. Rows of no slot and no length: nothing is stored, no expert is read."""
        sizes = decode_sizes(most_rows)
        shapes = [Shape(rows, max(rows, 2), n) for rows in sizes for n in (0, num_controls)]
        for left, shape in enumerate(reversed(shapes)):
            yield len(shapes) - left
            self._numbers.send_nobody(shape)
            if self._captured(shape) is None:
                self._compute(shape)

    def has(self, meta: StepMeta, controls: np.ndarray | None) -> bool:
        """Whether `start` gives a step that only replays a graph, where there are any."""
        shape = self._shape(meta, controls)
        return shape in self._graphs if self._captures else shape is not None

    @staticmethod
    def _shape(meta: StepMeta, controls: np.ndarray | None) -> Shape | None:
        every_row = meta.logit_rows_B.shape[0] == meta.num_rows
        return shape_of(meta, 0 if controls is None else len(controls)) if every_row else None

    def start(self, meta: StepMeta, controls: np.ndarray | None) -> Computed | None:
        """None: more rows or spans than graphs are made for."""
        shape = self._shape(meta, controls)
        if shape is None:
            return None
        self._numbers.send(meta, controls, shape)
        captured = self._captured(shape)
        time = DeviceTime.begin(self._device)
        if captured is None:
            computed = self._compute(shape)
        else:
            captured.graph.replay()
            computed = captured.computed
        picked_B, ids_LTK = self._results.send(computed.picked_B, computed.ids_LTK)
        if time is not None:
            time.stop.record()
        rows = slice(0, meta.num_rows)
        return Computed(
            computed.hidden_TD[rows],
            computed.logits_BV[rows],
            picked_B[rows],
            ids_LTK[:, rows],
            time,
        )

    def _captured(self, shape: Shape) -> Captured | None:
        """None: there is no CUDA device, or no memory. A new one has run, on the numbers there."""
        if self._captures is None:
            return None
        captured = self._graphs.get(shape)
        if captured is None:
            if self._captures.is_full():
                return None
            self._compute(shape)
            made = self._captures.capture(partial(self._compute, shape))
            if made is None:
                return None
            captured = self._graphs[shape] = Captured(*made)
            log.debug("a graph for %d rows and %d items", shape.rows, shape.items)
            if len(self._graphs) > MOST_GRAPHS:
                self._graphs.popitem(last=False)
        self._graphs.move_to_end(shape)
        return captured

    def _compute(self, shape: Shape) -> Computed:
        """What was picked and chosen is on the device yet."""
        given = self._numbers.given(shape)
        attend = self._attention.of_rows(given.decode)
        last_T = self._picks_B.index_select(0, (-1 - given.ids_T).clamp(min=0))
        ids_T = torch.where(given.ids_T < 0, last_T, given.ids_T)
        step = self._model.hidden(ids_T, given.positions_T, given.slots_T, attend)
        logits_BV = self._logits_BV[: shape.rows]
        picked_B = self._model.logits(step.hidden_TD, given.controls, logits_BV)
        torch.clamp(picked_B, min=0, out=self._picks_B[: shape.rows])
        return Computed(step.hidden_TD, logits_BV, picked_B, step.ids_LTK, None)
