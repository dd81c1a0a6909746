"""What passes through all layers and experts of one device, from token ids to logits?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from moe_model.config import ModelConfig
from moe_model.kernels.cuda.experts import CudaExperts
from moe_model.kernels.cuda.linear import CudaLinear
from moe_model.kernels.cuda.rows import CudaRows
from moe_model.kernels.cuda.step import Attend, CudaStep, CudaSteps
from moe_model.maths.rope import rope_cos_sin
from moe_model.maths.whole_steps import OuterWeights, Pick


@dataclass(frozen=True)
class DeviceTime:
    """When the device began, and when it ended."""

    start: torch.cuda.Event
    stop: torch.cuda.Event

    @classmethod
    def begin(cls, device: torch.device) -> "DeviceTime | None":
        """From now on; None elsewhere than on a CUDA device."""
        if device.type != "cuda":
            return None
        time = cls(*(torch.cuda.Event(enable_timing=True) for _ in range(2)))
        time.start.record()
        return time


@dataclass(frozen=True)
class Computed:
    """See WholeStep."""

    hidden_TD: Tensor
    logits_BV: Tensor
    picked_B: Tensor
    """int64, on the host: filled in by the time that `wait` returns."""
    ids_LTK: Tensor
    """int32, on the host, likewise."""
    time: "DeviceTime | None"

    def wait(self) -> None:
        if self.time is not None:
            self.time.stop.synchronize()

    def device_s(self) -> float:
        return 0.0 if self.time is None else self.time.start.elapsed_time(self.time.stop) / 1e3

    def is_done(self) -> bool:
        return self.time is None or self.time.stop.query()

    def picked(self) -> list[int]:
        found: list[int] = self.picked_B.tolist()
        return found

    def chosen(self) -> np.ndarray:
        return self.ids_LTK.numpy().copy()


@dataclass(frozen=True)
class CudaModel:
    """Everything that a step's rows pass through, on one device."""

    config: ModelConfig
    outer: OuterWeights
    steps: CudaSteps
    experts: Sequence[CudaExperts]
    missing_ids: Tensor | None
    """int64: never picked."""
    pick: Pick

    def hidden(
        self, ids_T: Tensor, positions_T: Tensor, slots_T: Tensor, attend: Attend
    ) -> CudaStep:
        """The step after its last layer."""
        hidden_TD = self.outer.embedding_VD.index_select(0, ids_T)
        cos_T, sin_T = rope_cos_sin(positions_T, self.outer.frequencies)
        step = CudaStep(self.steps, hidden_TD, cos_T, sin_T, slots_T, attend)
        for layer_idx, experts in enumerate(self.experts):
            step.add(experts.routed_parts(*step.up_to_dispatch(layer_idx)))
        return step

    def logits(self, hidden_BD: Tensor, controls: Tensor | None, out_BV: Tensor) -> Tensor:
        """Into `out_BV`. Returns int64 [B]: see WholeStep.picked."""
        eps = self.config.rms_norm_eps
        final_BD = CudaRows().rms_norm(hidden_BD, self.outer.final_norm_D, eps)
        assert isinstance(self.outer.lm_head_VD, CudaLinear)
        self.outer.lm_head_VD.linear_into(final_BD, out_BV)
        finite_B = torch.isfinite(out_BV.sum(dim=-1))
        if self.missing_ids is not None:
            kept = out_BV.index_select(1, self.missing_ids)
            out_BV.index_fill_(1, self.missing_ids, float("-inf"))
        ids_B = out_BV.argmax(dim=-1) if controls is None else self.pick(out_BV, controls)
        if self.missing_ids is not None:  # whoever samples asks first whether all are finite
            out_BV.index_copy_(1, self.missing_ids, kept)
        return torch.where(finite_B, ids_B, -1)


def on_host(values: Tensor) -> Tensor:
    """A copy under way to memory that the device can write to by itself."""
    if not values.is_cuda:
        return values
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return host.copy_(values, non_blocking=True)
