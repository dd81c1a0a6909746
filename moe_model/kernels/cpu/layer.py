"""A layer's attention block but for attention itself, in two native calls for bfloat16 rows.

Dozens of small calls would cost a decode step a tenth of its time: the pool's threads fall asleep
between them, and Python's and torch's code is slow there (docs/cold-caches.md).
"""

from typing import TypeGuard

import torch
from torch import Tensor

from moe_model.config import ModelConfig
from moe_model.kernels.cpu.library import need
from moe_model.kernels.cpu.packed import PackedMatrix
from moe_model.kernels.cpu.rows import NativeRows, as_rows, as_vector, float_bits
from moe_model.maths.layer import Layer, LayerWeights, PlainLayer
from moe_model.maths.linear import LinearWeight


def hold_layer(held: LayerWeights, config: ModelConfig) -> Layer:
    """Two native calls where this CPU has kernels for all linears, else step by step."""
    linears = (held.qkv_AD, held.o_DA, held.routing_ED)
    if not _can_run(linears):
        return PlainLayer(held, config, NativeRows())
    return NativeLayer(
        *linears,
        held.input_norm_D,
        held.post_norm_D,
        held.qk_norms,
        held.bias_E,
        num_heads=config.num_heads,
        num_groups=config.num_kv_heads,
        head_dim=config.head_dim,
        top_k=config.top_k,
        eps=config.rms_norm_eps,
    )


def _can_run(
    linears: tuple[LinearWeight, ...],
) -> TypeGuard[tuple[PackedMatrix, PackedMatrix, PackedMatrix]]:
    return all(isinstance(weight, PackedMatrix) and weight.has_kernel for weight in linears)


class NativeLayer:
    """`PlainLayer` with the native row functions, to the bit."""

    def __init__(
        self,
        qkv_AD: PackedMatrix,
        o_DA: PackedMatrix,
        routing_ED: PackedMatrix,
        input_norm_D: Tensor,
        post_norm_D: Tensor,
        qk_norms: tuple[Tensor, Tensor] | None,
        bias_E: Tensor | None,
        *,
        num_heads: int,
        num_groups: int,
        head_dim: int,
        top_k: int,
        eps: float,
    ):
        """Raises ValueError: sizes or dtypes that do not fit."""
        hidden_size, num_experts = qkv_AD.num_inputs, routing_ED.num_outputs
        query_size, kv_size = num_heads * head_dim, num_groups * head_dim
        for name, weight, shape, dtype in (
            ("qkv", qkv_AD, (query_size + 2 * kv_size, hidden_size), torch.bfloat16),
            ("o", o_DA, (hidden_size, query_size), torch.bfloat16),
            ("routing", routing_ED, (num_experts, hidden_size), torch.float32),
        ):
            found = (weight.num_outputs, weight.num_inputs)
            if found != shape or weight.weights.row_dtype != dtype:
                raise ValueError(f"{name} must be {shape} for {dtype} rows, not {found}")
        if not 1 <= top_k <= num_experts:
            raise ValueError(f"top_k must be 1 to {num_experts}, not {top_k}")
        vectors = [
            as_vector("input_norm", input_norm_D, torch.bfloat16, hidden_size),
            None
            if qk_norms is None
            else as_vector("q_norm", qk_norms[0], torch.bfloat16, query_size),
            None if qk_norms is None else as_vector("k_norm", qk_norms[1], torch.bfloat16, kv_size),
            as_vector("post_norm", post_norm_D, torch.bfloat16, hidden_size),
            None if bias_E is None else as_vector("bias", bias_E, torch.float32, num_experts),
        ]
        self._held = (qkv_AD, o_DA, routing_ED, vectors)  # what the table points to
        self.sizes = (hidden_size, num_heads, num_groups, head_dim, num_experts, top_k)
        self._table = torch.tensor(
            [
                *self.sizes,
                float_bits(eps),
                *(0 if vector is None else vector.data_ptr() for vector in vectors),
                *(
                    part
                    for weight in (qkv_AD, o_DA, routing_ED)
                    for part in (weight.weights.id, weight.data.data_ptr())
                ),
            ],
            dtype=torch.int64,
        )

    @property
    def address(self) -> int:
        """Of the table that the native functions take."""
        return self._table.data_ptr()

    def project(
        self, hidden_TD: Tensor, cos_T: Tensor, sin_T: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See moe_model.maths.layer. Raises ValueError: shapes or dtypes that do not fit."""
        hidden_size, num_heads, num_groups, head_dim, _, _ = self.sizes
        hidden_TD = as_rows("hidden", hidden_TD, torch.bfloat16, hidden_size)
        num_rows = hidden_TD.shape[0]
        half = cos_T.shape[-1]
        cos_T = as_rows("cos", cos_T, torch.float32, half)
        sin_T = as_rows("sin", sin_T, torch.float32, half)
        if not cos_T.shape[0] == sin_T.shape[0] == num_rows or 2 * half > head_dim:
            raise ValueError(
                f"cos and sin must be [{num_rows}, at most {head_dim // 2}], "
                f"not {list(cos_T.shape)} and {list(sin_T.shape)}"
            )
        normed_TD = torch.empty_like(hidden_TD)
        query_size, kv_size = num_heads * head_dim, num_groups * head_dim
        qkv_TA = hidden_TD.new_empty((num_rows, query_size + 2 * kv_size))
        q_THP = hidden_TD.new_empty((num_rows, num_heads, head_dim))
        k_TGP = hidden_TD.new_empty((num_rows, num_groups, head_dim))
        need().native.project(
            self._table.data_ptr(),
            hidden_TD.data_ptr(),
            num_rows,
            cos_T.data_ptr(),
            sin_T.data_ptr(),
            half,
            normed_TD.data_ptr(),
            qkv_TA.data_ptr(),
            q_THP.data_ptr(),
            k_TGP.data_ptr(),
        )
        v_TGP = qkv_TA[:, query_size + kv_size :].view(num_rows, num_groups, head_dim)
        return q_THP, k_TGP, v_TGP

    def dispatch(
        self, hidden_TD: Tensor, attended_TA: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See moe_model.maths.layer. Raises ValueError: shapes or dtypes that do not fit."""
        hidden_size, num_heads, _, head_dim, num_experts, top_k = self.sizes
        hidden_TD = as_rows("hidden", hidden_TD, torch.bfloat16, hidden_size)
        attended_TA = as_rows("attended", attended_TA, torch.bfloat16, num_heads * head_dim)
        num_rows = hidden_TD.shape[0]
        if attended_TA.shape[0] != num_rows:
            raise ValueError(f"attended must have {num_rows} rows, not {attended_TA.shape[0]}")
        projected_TD, residual_TD, dispatch_TD = hidden_TD.new_empty((3, num_rows, hidden_size))
        wide_TD = torch.empty((num_rows, hidden_size))
        logits_TE = torch.empty((num_rows, num_experts))
        ids_TK = torch.empty((num_rows, top_k), dtype=torch.int32)
        weights_TK = torch.empty((num_rows, top_k))
        need().native.dispatch(
            self._table.data_ptr(),
            hidden_TD.data_ptr(),
            attended_TA.data_ptr(),
            num_rows,
            projected_TD.data_ptr(),
            wide_TD.data_ptr(),
            logits_TE.data_ptr(),
            residual_TD.data_ptr(),
            dispatch_TD.data_ptr(),
            ids_TK.data_ptr(),
            weights_TK.data_ptr(),
        )
        return residual_TD, dispatch_TD, ids_TK, weights_TK
