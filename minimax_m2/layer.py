"""One transformer layer as two plain functions: up to dispatch, and from combine.

What lies between them (sending rows to experts and adding what comes back) is
the caller's: a network hop in attention_svc, a function call in reference.py.
No host synchronisation and no data-dependent shape inside, so that a CUDA graph
can capture what lies between two hops.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from minimax_m2.config import ModelConfig
from minimax_m2.linear import LinearWeight, linear
from minimax_m2.norm import rms_norm
from minimax_m2.rope import apply_rope
from minimax_m2.routing import route


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

    def to(self, device: torch.device) -> "LayerWeights":
        """The same weights on another device."""
        moved = {
            name: value.to(device) if isinstance(value, Tensor) else value
            for name, value in vars(self).items()
        }
        return LayerWeights(**moved)


Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(q_THP, k_TGP, v_TGP) of this step's rows -> output [T, H*P]; stores k and v on the way."""


def up_to_dispatch(
    hidden_TD: Tensor,
    layer: LayerWeights,
    config: ModelConfig,
    cos_T: Tensor,
    sin_T: Tensor,
    attend: Attend,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Attention block, then routing.

    Returns:
        residual_TD: the hidden rows to which the experts' output will be added.
        dispatch_TD: the normed rows the experts work on.
        topk_ids_TK, topk_weights_TK: see routing.route.
    """
    num_tokens = hidden_TD.shape[0]
    normed_TD = rms_norm(hidden_TD, layer.input_norm_D, config.rms_norm_eps)
    q, k, v = linear(normed_TD, layer.qkv_AD).split(
        (config.query_size, config.kv_size, config.kv_size), dim=-1
    )
    if layer.q_norm is not None and layer.k_norm is not None:
        # Over all heads of the projection at once, before the split into heads.
        q = rms_norm(q, layer.q_norm, config.rms_norm_eps)
        k = rms_norm(k, layer.k_norm, config.rms_norm_eps)
    q_THP = apply_rope(q.reshape(num_tokens, config.num_heads, config.head_dim), cos_T, sin_T)
    k_TGP = apply_rope(k.reshape(num_tokens, config.num_kv_heads, config.head_dim), cos_T, sin_T)
    v_TGP = v.reshape(num_tokens, config.num_kv_heads, config.head_dim)
    residual_TD = hidden_TD + linear(attend(q_THP, k_TGP, v_TGP), layer.o_DA)
    dispatch_TD = rms_norm(residual_TD, layer.post_norm_D, config.rms_norm_eps)
    topk_ids_TK, topk_weights_TK = route(dispatch_TD, layer.routing_ED, layer.bias_E, config.top_k)
    return residual_TD, dispatch_TD, topk_ids_TK, topk_weights_TK


def from_combine(residual_TD: Tensor, combined_TD: Tensor) -> Tensor:
    """Add the experts' float32 sums: rounded once to the compute dtype, then added."""
    return residual_TD + combined_TD.to(residual_TD.dtype)
