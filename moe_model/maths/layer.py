"""One transformer layer as two plain functions: up to dispatch, and from combine.

What lies between them (sending rows to experts and adding what comes back) is
the caller's: a network hop in attention_svc, a function call in reference.py.
No host synchronisation and no data-dependent shape inside, so that a CUDA graph
can capture what lies between two hops.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from moe_model.config import ModelConfig
from moe_model.maths.linear import LinearWeight, linear
from moe_model.maths.routing import route
from moe_model.maths.row_maths import TORCH, RowMaths


@dataclass(frozen=True, kw_only=True)
class LayerWeights:
    """Everything of a layer but its experts. Linear weights and norms in the compute dtype."""

    input_norm_D: Tensor
    qkv_AD: LinearWeight  # [(H + 2G) * P, D]: query, key, value rows
    q_norm: Tensor | None  # [H * P]
    k_norm: Tensor | None  # [G * P]
    o_DA: LinearWeight  # [D, H * P]
    post_norm_D: Tensor
    routing_ED: LinearWeight  # float32
    bias_E: Tensor | None  # float32

    @property
    def qk_norms(self) -> tuple[Tensor, Tensor] | None:
        if self.q_norm is None or self.k_norm is None:
            return None
        return self.q_norm, self.k_norm

    def to(self, device: torch.device) -> "LayerWeights":
        """The same weights on another device."""
        moved = {
            name: value.to(device) if isinstance(value, Tensor) else value
            for name, value in vars(self).items()
        }
        return LayerWeights(**moved)


class Layer(Protocol):
    """A layer's attention block but for attention itself, in two halves."""

    def project(
        self, hidden_TD: Tensor, cos_T: Tensor, sin_T: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Norm, QKV, QK-norm, RoPE: q_THP, k_TGP and v_TGP."""

    def dispatch(
        self, hidden_TD: Tensor, attended_TA: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Output projection, residual, norm, routing: what `up_to_dispatch` returns."""


@dataclass(frozen=True)
class PlainLayer:
    """The definition: one function after another, on any device."""

    weights: LayerWeights
    config: ModelConfig
    maths: RowMaths = TORCH

    def project(
        self, hidden_TD: Tensor, cos_T: Tensor, sin_T: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        held, config = self.weights, self.config
        normed_TD = self.maths.rms_norm(hidden_TD, held.input_norm_D, config.rms_norm_eps)
        return self.maths.split_heads(
            linear(normed_TD, held.qkv_AD),
            config.num_heads,
            config.num_kv_heads,
            held.qk_norms,
            config.rms_norm_eps,
            cos_T,
            sin_T,
        )

    def dispatch(
        self, hidden_TD: Tensor, attended_TA: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        held, config = self.weights, self.config
        residual_TD, dispatch_TD = self.maths.add_rms_norm(
            hidden_TD, linear(attended_TA, held.o_DA), held.post_norm_D, config.rms_norm_eps
        )
        chosen = route(dispatch_TD, held.routing_ED, held.bias_E, config.top_k, self.maths)
        return residual_TD, dispatch_TD, *chosen


Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(q_THP, k_TGP, v_TGP) of this step's rows -> output [T, H*P]; stores k and v on the way."""


def up_to_dispatch(
    hidden_TD: Tensor, layer: Layer, cos_T: Tensor, sin_T: Tensor, attend: Attend
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Attention block, then routing.

    Returns:
        residual_TD: the hidden rows to which the experts' output will be added.
        dispatch_TD: the normed rows the experts work on.
        topk_ids_TK, topk_weights_TK: see routing.route.
    """
    return layer.dispatch(hidden_TD, attend(*layer.project(hidden_TD, cos_T, sin_T)))


def from_combine(residual_TD: Tensor, combined_TD: Tensor, maths: RowMaths = TORCH) -> Tensor:
    """Add the experts' float32 sums: rounded once to the compute dtype, then added."""
    return maths.add_rounded(residual_TD, combined_TD)
