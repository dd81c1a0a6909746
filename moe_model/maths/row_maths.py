"""What does a layer do to its rows between the linears? Norms, RoPE, the choice of experts.

Plain torch on any device: the definition. For bfloat16 rows on a CPU with native kernels the same
methods are native calls (moe_model/kernels/cpu/rows.py): a decode step is then a few calls
instead of a hundred small operators.
"""

import torch
from torch import Tensor

from moe_model.maths import norm
from moe_model.maths.rope import apply_rope


class RowMaths:
    """Every row's result depends on that row only."""

    def rms_norm(self, hidden_TD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
        """See norm.rms_norm."""
        return norm.rms_norm(hidden_TD, weight_D, eps)

    def add_rms_norm(
        self, residual_TD: Tensor, added_TD: Tensor, weight_D: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        """`add_rounded`, and the norm of it."""
        sum_TD = self.add_rounded(residual_TD, added_TD)
        return sum_TD, self.rms_norm(sum_TD, weight_D, eps)

    def add_rounded(self, residual_TD: Tensor, added_TD: Tensor) -> Tensor:
        """residual + added, which is first rounded to the residual's dtype if it is float32."""
        return residual_TD + added_TD.to(residual_TD.dtype)

    def split_heads(
        self,
        qkv_TA: Tensor,
        num_heads: int,
        num_groups: int,
        norms: tuple[Tensor, Tensor] | None,
        eps: float,
        cos_T: Tensor,
        sin_T: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """q_THP, k_TGP and v_TGP; queries and keys normed over all their heads at once, rotated.

        `qkv_TA` may be used up: the values are a view of it.
        """
        head_dim = qkv_TA.shape[1] // (num_heads + 2 * num_groups)
        sizes = (num_heads * head_dim, num_groups * head_dim, num_groups * head_dim)
        q, k, v = qkv_TA.split(sizes, dim=-1)
        if norms is not None:
            q, k = self.rms_norm(q, norms[0], eps), self.rms_norm(k, norms[1], eps)
        q_THP = apply_rope(q.reshape(-1, num_heads, head_dim), cos_T, sin_T)
        k_TGP = apply_rope(k.reshape(-1, num_groups, head_dim), cos_T, sin_T)
        return q_THP, k_TGP, v.reshape(-1, num_groups, head_dim)

    def choose_experts(
        self, logits_TE: Tensor, bias_E: Tensor | None, top_k: int
    ) -> tuple[Tensor, Tensor]:
        """See routing.route."""
        # Not torch.sigmoid: on CPUs its last elements, which need not be the last row's, come from
        # other code than the rest, with other last bits.
        scores_TE = 1.0 / (1.0 + torch.exp(-logits_TE))
        choice_TE = scores_TE if bias_E is None else scores_TE + bias_E.float()
        # A stable sort, unlike topk, gives ties to the lower id on every device.
        order_TE = torch.sort(choice_TE, dim=-1, descending=True, stable=True).indices
        topk_ids_TK = order_TE[:, :top_k].sort(dim=-1).values
        weights_TK = scores_TE.gather(1, topk_ids_TK)
        return topk_ids_TK.int(), weights_TK / weights_TK.sum(dim=-1, keepdim=True)


TORCH = RowMaths()
"""The definition itself."""
