"""A step from token ids to logits without a word from the host between its layers.

Steps of few rows are replayed from CUDA graphs; every other step launches the same kernels one by
one. The bits are the same.
"""

import logging
from collections.abc import Callable, Iterator

import numpy as np
import torch

from moe_model.kernels.cuda.attention import CudaAttention
from moe_model.kernels.cuda.graphs.captures import Captures
from moe_model.kernels.cuda.graphs.chunks import ChunkGraphs, Layers
from moe_model.kernels.cuda.graphs.decode import DecodeGraphs
from moe_model.kernels.cuda.graphs.nobody import chunk_of_nobody, chunk_sizes
from moe_model.kernels.cuda.model import Computed, CudaModel, DeviceTime, on_host
from moe_model.maths.step_meta import StepMeta

log = logging.getLogger(__name__)


class CudaWholeSteps:
    """See WholeSteps."""

    def __init__(self, model: CudaModel, attention: CudaAttention):
        self._model, self._attention = model, attention
        device = model.outer.embedding_VD.device
        captures = self._captures = Captures(device) if device.type == "cuda" else None
        self._graphs = DecodeGraphs(model, attention, captures)
        self._chunks = ChunkGraphs(model, attention, captures)

    @torch.inference_mode()
    def warm_up(self, most_rows: int, most_decode: int, num_controls: int) -> Iterator[int]:
        sizes = chunk_sizes(most_rows)
        num_chunk_graphs = self._chunks.num_shapes(most_rows)
        for left in self._graphs.warm_up(most_decode, num_controls):
            yield left + num_chunk_graphs + len(sizes)
        for left in self._chunks.warm_up(most_rows):
            yield left + len(sizes)
        if self._captures is not None:
            log.info("%s", self._captures)
        for left, num_rows in enumerate(sizes):
            yield len(sizes) - left
            self._compute(chunk_of_nobody(num_rows), None, self._layers).wait()

    def is_short(self, meta: StepMeta, controls: np.ndarray | None = None) -> bool:
        return self._graphs.has(meta, controls)

    @torch.inference_mode()
    def start(self, meta: StepMeta, controls: np.ndarray | None = None) -> Computed:
        return self._graphs.start(meta, controls) or self._compute(meta, controls, self._either)

    def _compute(
        self, meta: StepMeta, controls: np.ndarray | None, layers: Callable[[StepMeta], Layers]
    ) -> Computed:
        model = self._model
        device = model.outer.embedding_VD.device
        time = DeviceTime.begin(device)
        logit_rows_B = meta.logit_rows_B.to(device)  # before the layers: copies wait for them
        given = None if controls is None else torch.from_numpy(controls).to(device)
        hidden_TD, ids_LTK = layers(meta)
        hidden_BD = hidden_TD[logit_rows_B]
        logits_BV = torch.empty((hidden_BD.shape[0], model.config.vocab_size), device=device)
        picked_B = on_host(model.logits(hidden_BD, given, logits_BV))
        if time is not None:
            time.stop.record()
        return Computed(hidden_TD, logits_BV, picked_B, ids_LTK, time)

    def _either(self, meta: StepMeta) -> Layers:
        return self._chunks.start(meta) or self._layers(meta)

    def _layers(self, meta: StepMeta) -> Layers:
        """Kernel by kernel."""
        attend = self._attention.plan(meta)
        meta = meta.to(self._model.outer.embedding_VD.device)
        step = self._model.hidden(meta.token_ids_T, meta.positions_T, meta.slot_mapping_T, attend)
        return step.hidden_TD, on_host(step.ids_LTK)
