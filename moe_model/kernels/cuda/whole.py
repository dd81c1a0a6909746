"""A step from token ids to logits without a word from the host between its layers.

Decode steps of few rows are replayed from CUDA graphs; every other step launches the same kernels
one by one. The bits are the same.
"""

from collections.abc import Iterator

import numpy as np
import torch

from moe_model.kernels.cuda.attention import CudaAttention
from moe_model.kernels.cuda.graphs import DecodeGraphs
from moe_model.kernels.cuda.model import Computed, CudaModel, DeviceTime, on_host
from moe_model.kernels.cuda.nobody import chunk_of_nobody, chunk_sizes
from moe_model.maths.step_meta import StepMeta


class CudaWholeSteps:
    """See WholeSteps."""

    def __init__(self, model: CudaModel, attention: CudaAttention):
        self._model, self._attention = model, attention
        self._graphs = DecodeGraphs(model, attention)

    @torch.inference_mode()
    def warm_up(self, most_rows: int, most_decode: int, num_controls: int) -> Iterator[int]:
        sizes = chunk_sizes(most_rows)
        for left in self._graphs.warm_up(most_decode, num_controls):
            yield left + len(sizes)
        for left, num_rows in enumerate(sizes):
            yield len(sizes) - left
            self._launch(chunk_of_nobody(num_rows), None).wait()

    def is_short(self, meta: StepMeta, controls: np.ndarray | None = None) -> bool:
        return self._graphs.has(meta, controls)

    @torch.inference_mode()
    def start(self, meta: StepMeta, controls: np.ndarray | None = None) -> Computed:
        return self._graphs.start(meta, controls) or self._launch(meta, controls)

    def _launch(self, meta: StepMeta, controls: np.ndarray | None) -> Computed:
        model = self._model
        device = model.outer.embedding_VD.device
        time = DeviceTime.begin(device)
        attend = self._attention.plan(meta)
        meta = meta.to(device)
        step = model.hidden(meta.token_ids_T, meta.positions_T, meta.slot_mapping_T, attend)
        hidden_BD = step.hidden_TD[meta.logit_rows_B]
        logits_BV = torch.empty(
            (hidden_BD.shape[0], model.config.vocab_size), device=hidden_BD.device
        )
        given = None if controls is None else torch.from_numpy(controls).to(device)
        picked_B = on_host(model.logits(hidden_BD, given, logits_BV))
        ids_LTK = on_host(step.ids_LTK)
        if time is not None:
            time.stop.record()
        return Computed(step.hidden_TD, logits_BV, picked_B, ids_LTK, time)
