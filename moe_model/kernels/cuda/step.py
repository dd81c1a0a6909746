"""Rows on their way through the layers: every sum is added by the kernel that reads it.

Nothing waits for the device, so that a CUDA graph can hold a step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from moe_model.kernels.cuda.attention import scales_of
from moe_model.kernels.cuda.linear import CudaLinear, RoutingMatrix
from moe_model.kernels.cuda.rows import Parts, launch_choose, launch_heads, launch_norm
from moe_model.maths.kv_layout import KvPages
from moe_model.maths.layer import PlainLayer
from moe_model.maths.paged_attention import PagedAttention
from moe_model.maths.step_meta import StepMeta

Attend = Callable[[int, Tensor], Tensor]
"""(layer_idx, q_THP), whose keys and values are stored -> [T, H*P]."""


@dataclass(frozen=True)
class CudaSteps:
    """Layers with linears of these kernels, and the pages of their keys and values, by position."""

    layers: Sequence[PlainLayer]
    cache: KvPages
    attention: PagedAttention

    def begin(self, hidden_TD: Tensor, cos_T: Tensor, sin_T: Tensor, meta: StepMeta) -> "CudaStep":
        attend = self.attention.plan(meta)
        meta = meta.to(hidden_TD.device)
        return CudaStep(self, hidden_TD, cos_T, sin_T, meta.slot_mapping_T, attend)


class CudaStep:
    """See LayerSteps. The rows that it is given are used up: `hidden_TD` is the same memory.

    Rows with slot -1 fill a batch up: they store nothing and choose nobody.
    """

    def __init__(
        self,
        steps: CudaSteps,
        hidden_TD: Tensor,
        cos_T: Tensor,
        sin_T: Tensor,
        slots_T: Tensor,
        attend: Attend,
    ):
        config = steps.layers[0].config
        self._steps, self._attend, self._slots_T = steps, attend, slots_T
        self._cos_sin = (cos_T, sin_T)
        self.layer_idx = 0
        """Which `add` follows."""
        self.hidden_TD = hidden_TD
        self._residual_TD, self._normed_TD = (torch.empty_like(hidden_TD) for _ in range(2))
        self._dispatch_TD = torch.empty_like(hidden_TD)
        self.ids_LTK = torch.empty(
            (len(steps.layers), hidden_TD.shape[0], config.top_k),
            dtype=torch.int32,
            device=hidden_TD.device,
        )

    @cached_property
    def combined_TD(self) -> Tensor:
        """Made where it is asked for: whole steps have no use for it."""
        return torch.empty_like(self.hidden_TD, dtype=torch.float32)

    @torch.inference_mode()
    def up_to_dispatch(self, layer_idx: int) -> tuple[Tensor, Tensor, Tensor]:
        layer = self._steps.layers[layer_idx]
        held, config = layer.weights, layer.config
        qkv_AD, o_DA, routing_ED = held.qkv_AD, held.o_DA, held.routing_ED
        assert isinstance(qkv_AD, CudaLinear)
        assert isinstance(o_DA, CudaLinear)
        assert isinstance(routing_ED, RoutingMatrix)
        hidden_TD, num_rows, eps = self.hidden_TD, self.hidden_TD.shape[0], config.rms_norm_eps
        if not layer_idx:  # later ones are normed where their sums are added
            launch_norm(hidden_TD, None, None, held.input_norm_D, self._normed_TD, eps)
        q_THP = hidden_TD.new_empty((num_rows, config.num_heads, config.head_dim))
        pages = self._steps.cache.pages(layer_idx)
        launch_heads(
            qkv_AD.parts_of(self._normed_TD), held.qk_norms, eps, *self._cos_sin,
            self._slots_T, q_THP, pages, scales_of(pages),
            config.num_kv_heads * config.head_dim,
        )  # fmt: skip
        added = o_DA.parts_of(self._attend(layer_idx, q_THP))
        launch_norm(hidden_TD, added, self._residual_TD, held.post_norm_D, self._dispatch_TD, eps)
        weights_TK = torch.empty((num_rows, config.top_k), device=hidden_TD.device)
        logits = routing_ED.coded.parts_of(self._dispatch_TD)
        ids_TK = self.ids_LTK[layer_idx]
        launch_choose(logits, held.bias_E, self._slots_T, ids_TK, weights_TK, config.num_experts)
        self.layer_idx = layer_idx
        return self._dispatch_TD, ids_TK, weights_TK

    def from_combine(self) -> None:
        self.add(Parts.of(self.combined_TD))

    @torch.inference_mode()
    def add(self, parts: Parts) -> None:
        """The experts' sums, in parts; `combined_TD` is not looked at."""
        layers, following = self._steps.layers, self.layer_idx + 1
        is_last = following == len(layers)
        launch_norm(
            self._residual_TD, parts, self.hidden_TD,
            None if is_last else layers[following].weights.input_norm_D,
            None if is_last else self._normed_TD, layers[0].config.rms_norm_eps,
        )  # fmt: skip

    def chosen(self) -> np.ndarray:
        return self.ids_LTK.cpu().numpy()
