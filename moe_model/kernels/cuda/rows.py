"""What does a layer do to its rows between the linears? One kernel each, one program a row.

A row's sums run over the same tree whatever the other rows are.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from moe_model.maths.row_maths import RowMaths


@triton.jit
def _norm(
    rows, row_stride, added, sums, weight, out, size, eps, ADD: tl.constexpr, C: tl.constexpr
):
    """out = norm(rows) or, with ADD, sums = rows + added (rounded) and out = norm(sums)."""
    row = tl.program_id(0).to(tl.int64)
    at_C = tl.arange(0, C)
    inside = at_C < size
    x_C = tl.load(rows + row * row_stride + at_C, mask=inside, other=0.0).to(tl.float32)
    if ADD:
        kind = sums.dtype.element_ty
        y_C = tl.load(added + row * size + at_C, mask=inside, other=0.0).to(kind).to(tl.float32)
        rounded_C = (x_C + y_C).to(kind)
        tl.store(sums + row * size + at_C, rounded_C, mask=inside)
        x_C = rounded_C.to(tl.float32)
    scale = tl.rsqrt(tl.sum(x_C * x_C, 0) / size + eps)
    weight_C = tl.load(weight + at_C, mask=inside, other=0.0).to(tl.float32)
    tl.store(
        out + row * size + at_C, (x_C * scale * weight_C).to(out.dtype.element_ty), mask=inside
    )


@triton.jit
def _heads(
    qkv, row_stride, first, size, weight, eps, cos, sin, half, out,
    HAS_NORM: tl.constexpr, P: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Heads of queries or keys: normed over all of them, rounded, rotated, rounded."""
    row = tl.program_id(0).to(tl.int64)
    at_C = tl.arange(0, C)
    inside = at_C < size
    place_C = at_C % P
    in_first_C = place_C < half
    turns_C = place_C < 2 * half
    partner_C = at_C + tl.where(turns_C, tl.where(in_first_C, half, -half), 0)
    kind = out.dtype.element_ty
    here = qkv + row * row_stride + first
    x_C = tl.load(here + at_C, mask=inside, other=0.0).to(tl.float32)
    other_C = tl.load(here + partner_C, mask=inside, other=0.0).to(tl.float32)
    if HAS_NORM:
        scale = tl.rsqrt(tl.sum(x_C * x_C, 0) / size + eps)
        own = tl.load(weight + at_C, mask=inside, other=0.0).to(tl.float32)
        partners = tl.load(weight + partner_C, mask=inside, other=0.0).to(tl.float32)
        x_C = (x_C * scale * own).to(kind).to(tl.float32)
        other_C = (other_C * scale * partners).to(kind).to(tl.float32)
    angle_C = tl.where(in_first_C, place_C, place_C - half)
    turning = inside & turns_C
    cos_C = tl.load(cos + row * half + angle_C, mask=turning, other=1.0)
    sin_C = tl.load(sin + row * half + angle_C, mask=turning, other=0.0)
    turned_C = tl.where(in_first_C, x_C * cos_C - other_C * sin_C, x_C * cos_C + other_C * sin_C)
    found_C = tl.where(turns_C, turned_C, x_C)
    tl.store(out + row * size + at_C, found_C.to(kind), mask=inside)


@triton.jit
def _choose(
    logits, bias, ids, weights, num_experts,
    HAS_BIAS: tl.constexpr, K: tl.constexpr, E: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    at_E = tl.arange(0, E)
    inside = at_E < num_experts
    logits_E = tl.load(logits + row * num_experts + at_E, mask=inside, other=0.0)
    scores_E = 1.0 / (1.0 + tl.exp(-logits_E))
    choice_E = scores_E
    if HAS_BIAS:
        choice_E += tl.load(bias + at_E, mask=inside, other=0.0)
    # A NaN is chosen last, as it is where rows are sorted with the largest first.
    choice_E = tl.where(inside & (choice_E == choice_E), choice_E, float("-inf"))
    chosen_E = tl.zeros([E], tl.int32)
    for _ in tl.static_range(K):
        left_E = tl.where(inside & (chosen_E == 0), at_E, E)
        best = tl.max(tl.where(left_E < E, choice_E, float("-inf")), 0)
        found = tl.min(tl.where(choice_E == best, left_E, E), 0)
        chosen_E = tl.where(at_E == found, 1, chosen_E)
    place_E = tl.cumsum(chosen_E, 0) - 1
    kept_E = tl.where(chosen_E > 0, scores_E, 0.0)
    total = tl.sum(kept_E, 0)
    tl.store(ids + row * K + place_E, at_E, mask=chosen_E > 0)
    tl.store(weights + row * K + place_E, kept_E / total, mask=chosen_E > 0)


class CudaRows(RowMaths):
    """bfloat16 rows."""

    def rms_norm(self, hidden_TD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
        out_TD = torch.empty(hidden_TD.shape, dtype=hidden_TD.dtype, device=hidden_TD.device)
        _launch_norm(hidden_TD, None, None, weight_D, out_TD, eps)
        return out_TD

    def add_rms_norm(
        self, residual_TD: Tensor, added_TD: Tensor, weight_D: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        sum_TD, out_TD = torch.empty_like(residual_TD), torch.empty_like(residual_TD)
        _launch_norm(residual_TD, added_TD.contiguous(), sum_TD, weight_D, out_TD, eps)
        return sum_TD, out_TD

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
        num_rows = qkv_TA.shape[0]
        head_dim = qkv_TA.shape[1] // (num_heads + 2 * num_groups)
        q, k = (
            torch.empty((num_rows, heads, head_dim), dtype=qkv_TA.dtype, device=qkv_TA.device)
            for heads in (num_heads, num_groups)
        )
        first = 0
        for index, out in enumerate((q, k)):
            size = out.shape[1] * head_dim
            weight = norms[index] if norms else qkv_TA
            _heads[(num_rows,)](
                qkv_TA, qkv_TA.stride(0), first, size, weight, eps, cos_T, sin_T, cos_T.shape[1],
                out, HAS_NORM=norms is not None, P=head_dim, C=triton.next_power_of_2(size),
                num_warps=8 if size > 2048 else 4,
            )  # fmt: skip
            first += size
        return q, k, qkv_TA[:, first:].view(num_rows, num_groups, head_dim)

    def choose_experts(
        self, logits_TE: Tensor, bias_E: Tensor | None, top_k: int
    ) -> tuple[Tensor, Tensor]:
        num_rows, num_experts = logits_TE.shape
        ids_TK = torch.empty((num_rows, top_k), dtype=torch.int32, device=logits_TE.device)
        weights_TK = torch.empty((num_rows, top_k), device=logits_TE.device)
        _choose[(num_rows,)](
            logits_TE, logits_TE if bias_E is None else bias_E.float(), ids_TK, weights_TK,
            num_experts, HAS_BIAS=bias_E is not None, K=top_k,
            E=triton.next_power_of_2(num_experts), num_warps=1,
        )  # fmt: skip
        return ids_TK, weights_TK


def _launch_norm(
    rows_TD: Tensor,
    added_TD: Tensor | None,
    sum_TD: Tensor | None,
    weight_D: Tensor,
    out_TD: Tensor,
    eps: float,
) -> None:
    num_rows, size = rows_TD.shape
    _norm[(num_rows,)](
        rows_TD, rows_TD.stride(0), rows_TD if added_TD is None else added_TD,
        rows_TD if sum_TD is None else sum_TD, weight_D, out_TD, size, eps,
        ADD=added_TD is not None, C=triton.next_power_of_2(size), num_warps=8 if size > 2048 else 4,
    )  # fmt: skip
