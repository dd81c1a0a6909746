"""Short steps with chunks as CUDA graphs: one for each number of rows.

A prompt whose beginning is cached computes few rows, also beside others that decode: launched one
by one its kernels take the host longer than the device. A graph holds all layers; the head, whose
rows are any, follows while the device is at work. Chunks are attended to span by span, with the
same bits.
"""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from moe_model.gpus import wait_for_stream
from moe_model.kernels.cuda.attention import CudaAttention
from moe_model.kernels.cuda.graphs.captures import Captures
from moe_model.kernels.cuda.graphs.nobody import chunk_of_nobody
from moe_model.kernels.cuda.graphs.results import Results
from moe_model.kernels.cuda.graphs.tile_numbers import TiledShape, TileNumbers, tiled_shapes
from moe_model.kernels.cuda.model import CudaModel
from moe_model.maths.step_meta import StepMeta

Layers = tuple[Tensor, Tensor]
"""Rows after the last layer, and whom every layer chose, int32 [L, T, K]."""


class ChunkGraphs:
    """Of one model. `captures`: None elsewhere than on a CUDA device, where nothing is captured."""

    def __init__(self, model: CudaModel, attention: CudaAttention, captures: Captures | None):
        self._model, self._attention, self._captures = model, attention, captures
        num_blocks = model.steps.cache.pages(0)[0].shape[0]
        self._device = device = model.outer.embedding_VD.device
        self._numbers = TileNumbers(attention.tile_rows, num_blocks, device)
        self._results = Results(device)
        self._graphs: dict[TiledShape, tuple[torch.cuda.CUDAGraph, Layers]] = {}

    def num_shapes(self, most_rows: int) -> int:
        return len(self._shapes(most_rows))

    def _shapes(self, most_rows: int) -> list[TiledShape]:
        return tiled_shapes(self._attention.tile_rows, most_rows) if self._captures else []

    def warm_up(self, most_rows: int) -> Iterator[int]:
        """See WholeSteps. The largest first: the others find its memory."""
        shapes = self._shapes(most_rows)
        for left, shape in enumerate(reversed(shapes)):
            yield len(shapes) - left
            self.start(chunk_of_nobody(min(shape.rows, most_rows)))
            wait_for_stream(self._device)  # its numbers are read before others are written

    def start(self, meta: StepMeta) -> Layers | None:
        """With the choices on the host, once the device has come that far.

        None: the step is none of these, and its kernels are to be launched one by one.
        """
        if self._captures is None:
            return None
        return self.run(meta)

    def run(self, meta: StepMeta) -> Layers | None:
        """`start`, also where nothing can be captured."""
        shape = self._numbers.send(meta)
        if shape is None:
            return None
        found = self._graphs.get(shape)
        if found is not None:
            found[0].replay()
            layers = found[1]
        else:
            layers = self._compute(shape)
            made = self._captures.capture(partial(self._compute, shape)) if self._captures else None
            if made is not None:
                self._graphs[shape] = made
        hidden_TD, ids_LTK = layers
        (host_LTK,) = self._results.send(ids_LTK)
        return hidden_TD[: meta.num_rows], host_LTK[:, : meta.num_rows]

    def _compute(self, shape: TiledShape) -> Layers:
        given = self._numbers.given(shape)
        attend = self._attention.of_tiles(given.tiles)
        step = self._model.hidden(given.ids_T, given.positions_T, given.slots_T, attend)
        return step.hidden_TD, step.ids_LTK
