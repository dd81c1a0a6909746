"""What does a layer do to its rows between the linears? One kernel each, one program a row.

A row's sums run over the same tree whatever the other rows are. What a linear or the experts leave
comes as float32 sums or bfloat16 rows of several programs, its parts: they are added here, in
ascending order, by whoever reads them.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from moe_model.kernels.cuda.launch import launch, power_of_two
from moe_model.maths.row_maths import RowMaths


@triton.jit
def add_parts(parts, stride, mask, PARTS: tl.constexpr):
    """In ascending order, in float32."""
    sum_C = tl.load(parts, mask=mask, other=0.0).to(tl.float32)
    for part in tl.static_range(1, PARTS):
        sum_C += tl.load(parts + part * stride, mask=mask, other=0.0).to(tl.float32)
    return sum_C


@triton.jit
def norm_rows(
    rows, row_stride, parts, parts_row, parts_stride, sums, weight, out, size, eps,
    PARTS: tl.constexpr, NORM: tl.constexpr, C: tl.constexpr
):  # fmt: skip
    """sums = rows + parts, whose sum is rounded first, if there are any; out = their norm."""
    row = tl.program_id(0).to(tl.int64)
    at_C = tl.arange(0, C)
    inside = at_C < size
    kind = rows.dtype.element_ty
    if NORM:
        weight_C = tl.load(weight + at_C, mask=inside, other=0.0).to(tl.float32)
    x_C = tl.load(rows + row * row_stride + at_C, mask=inside, other=0.0).to(tl.float32)
    if PARTS:
        y_C = add_parts(parts + row * parts_row + at_C, parts_stride, inside, PARTS)
        rounded_C = (x_C + y_C.to(kind).to(tl.float32)).to(kind)
        tl.store(sums + row * size + at_C, rounded_C, mask=inside)
        x_C = rounded_C.to(tl.float32)
    if NORM:
        scale = tl.rsqrt(tl.sum(x_C * x_C, 0) / size + eps)
        tl.store(
            out + row * size + at_C, (x_C * scale * weight_C).to(out.dtype.element_ty), mask=inside
        )


@triton.jit
def _turn(
    parts, stride, size, weight, eps, cos, sin, half, kind: tl.constexpr,
    PARTS: tl.constexpr, HAS_NORM: tl.constexpr, P: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Heads of queries or keys [C]: normed over all of them, rounded, rotated, rounded."""
    at_C = tl.arange(0, C)
    inside = at_C < size
    place_C = at_C % P
    in_first_C = place_C < half
    turns_C = place_C < 2 * half
    partner_C = at_C + tl.where(turns_C, tl.where(in_first_C, half, -half), 0)
    x_C = add_parts(parts + at_C, stride, inside, PARTS).to(kind).to(tl.float32)
    other_C = add_parts(parts + partner_C, stride, inside, PARTS).to(kind).to(tl.float32)
    if HAS_NORM:
        own = tl.load(weight + at_C, mask=inside, other=0.0).to(tl.float32)
        partners = tl.load(weight + partner_C, mask=inside, other=0.0).to(tl.float32)
        scale = tl.rsqrt(tl.sum(x_C * x_C, 0) / size + eps)
        x_C = (x_C * scale * own).to(kind).to(tl.float32)
        other_C = (other_C * scale * partners).to(kind).to(tl.float32)
    angle_C = tl.where(in_first_C, place_C, place_C - half)
    turning = inside & turns_C
    cos_C = tl.load(cos + angle_C, mask=turning, other=1.0)
    sin_C = tl.load(sin + angle_C, mask=turning, other=0.0)
    turned_C = tl.where(in_first_C, x_C * cos_C - other_C * sin_C, x_C * cos_C + other_C * sin_C)
    return tl.where(turns_C, turned_C, x_C).to(kind)


@triton.jit
def _store_coded(
    rows_KV, codes, scales, slot, kv_size, P: tl.constexpr, KV: tl.constexpr
):  # fmt: skip
    """As Int8Layout has it: codes of all heads, then a scale for each."""
    row_GP = tl.reshape(rows_KV.to(tl.float32), [KV // P, P])
    is_nan_G = tl.max((row_GP != row_GP).to(tl.int32), 1) > 0
    scale_G = tl.where(is_nan_G, float("nan"), tl.max(tl.abs(row_GP), 1) / 127.0)
    # Adding and subtracting 1.5 x 2^23 rounds to the nearest integer, and ties to the even one.
    code_GP = row_GP / tl.maximum(scale_G, 1e-35)[:, None] + 12582912.0 - 12582912.0
    code_GP = tl.where(is_nan_G[:, None], 0.0, code_GP)
    at = tl.arange(0, KV)
    at_G = tl.arange(0, KV // P)
    num_groups = kv_size // P
    first = slot * (kv_size + 4 * num_groups)
    tl.store(codes + first + at, tl.reshape(code_GP, [KV]).to(tl.int8), mask=at < kv_size)
    tl.store(scales + (first + kv_size) // 4 + at_G, scale_G, mask=at_G < num_groups)


@triton.jit
def split_heads(
    parts, parts_row, parts_stride, q_weight, k_weight, eps, cos, sin, half,
    slots, q, keys, values, key_scales, value_scales, q_size, kv_size,
    CODED: tl.constexpr, PARTS: tl.constexpr, HAS_NORM: tl.constexpr, P: tl.constexpr,
    Q: tl.constexpr, KV: tl.constexpr
):  # fmt: skip
    """Programs (row, 0): queries; (row, 1): keys and values, to the row's slot if it has one."""
    row = tl.program_id(0).to(tl.int64)
    here = parts + row * parts_row
    cos += row * half
    sin += row * half
    kind: tl.constexpr = q.dtype.element_ty
    if tl.program_id(1) == 0:
        q_Q = _turn(
            here, parts_stride, q_size, q_weight, eps, cos, sin, half, kind, PARTS, HAS_NORM, P, Q
        )
        at_Q = tl.arange(0, Q)
        tl.store(q + row * q_size + at_Q, q_Q, mask=at_Q < q_size)
    else:
        slot = tl.load(slots + row).to(tl.int64)
        if slot >= 0:
            at = tl.arange(0, KV)
            inside = at < kv_size
            k = _turn(
                here + q_size, parts_stride, kv_size, k_weight, eps, cos, sin, half, kind,
                PARTS, HAS_NORM, P, KV,
            )  # fmt: skip
            v = add_parts(here + q_size + kv_size + at, parts_stride, inside, PARTS).to(kind)
            if CODED:
                _store_coded(k, keys, key_scales, slot, kv_size, P, KV)
                _store_coded(v, values, value_scales, slot, kv_size, P, KV)
            else:
                tl.store(keys + slot * kv_size + at, k, mask=inside)
                tl.store(values + slot * kv_size + at, v, mask=inside)


@triton.jit
def choose(
    parts, parts_row, parts_stride, bias, slots, ids, weights, num_experts,
    PARTS: tl.constexpr, HAS_BIAS: tl.constexpr, K: tl.constexpr, E: tl.constexpr
):  # fmt: skip
    """Rows without a slot choose nobody: -1."""
    row = tl.program_id(0).to(tl.int64)
    at_E = tl.arange(0, E)
    inside = at_E < num_experts
    logits_E = add_parts(parts + row * parts_row + at_E, parts_stride, inside, PARTS)
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
    serves = tl.load(slots + row) >= 0
    tl.store(ids + row * K + place_E, tl.where(serves, at_E, -1), mask=chosen_E > 0)
    tl.store(weights + row * K + place_E, kept_E / total, mask=chosen_E > 0)


@dataclass(frozen=True)
class Parts:
    """Row t, part s begins at `values` + t * row_stride + s * part_stride; a row is their sum."""

    values: Tensor
    row_stride: int
    part_stride: int
    count: int

    @classmethod
    def of(cls, rows_TD: Tensor) -> "Parts":
        """Whole rows: one part."""
        rows_TD = rows_TD.contiguous()
        return cls(rows_TD, rows_TD.shape[1], 0, 1)


def launch_norm(
    rows_TD: Tensor,
    parts: Parts | None,
    sum_TD: Tensor | None,
    weight_D: Tensor | None,
    out_TD: Tensor | None,
    eps: float,
) -> None:
    num_rows, size = rows_TD.shape
    if not num_rows:
        return
    added = parts or Parts(rows_TD, 0, 0, 0)
    launch(
        norm_rows, (num_rows,),
        rows_TD, rows_TD.stride(0), added.values, added.row_stride, added.part_stride,
        rows_TD if sum_TD is None else sum_TD, rows_TD if weight_D is None else weight_D,
        rows_TD if out_TD is None else out_TD, size, eps,
        PARTS=added.count, NORM=out_TD is not None, C=power_of_two(size),
        num_warps=8 if size > 2048 else 4,
    )  # fmt: skip


def launch_heads(
    qkv: Parts,
    norms: tuple[Tensor, Tensor] | None,
    eps: float,
    cos_T: Tensor,
    sin_T: Tensor,
    slots_T: Tensor,
    q_THP: Tensor,
    pages: tuple[Tensor, Tensor],
    scales: tuple[Tensor, Tensor],
    kv_size: int,
) -> None:
    """Keys and values to `pages`: [slots, kv_size] each, or int8 with their `scales`."""
    num_rows, num_heads, head_dim = q_THP.shape
    if not num_rows:
        return
    q_size = num_heads * head_dim
    weights = norms or (q_THP, q_THP)
    launch(
        split_heads, (num_rows, 2),
        qkv.values, qkv.row_stride, qkv.part_stride, *weights, eps, cos_T, sin_T, cos_T.shape[1],
        slots_T, q_THP, *pages, *scales, q_size, kv_size,
        CODED=pages[0].dtype == torch.int8, PARTS=qkv.count, HAS_NORM=norms is not None, P=head_dim,
        Q=power_of_two(q_size), KV=power_of_two(kv_size),
        num_warps=8 if q_size > 2048 else 4,
    )  # fmt: skip


def launch_choose(
    logits: Parts, bias_E: Tensor | None, slots_T: Tensor, ids_TK: Tensor, weights_TK: Tensor,
    num_experts: int,
) -> None:  # fmt: skip
    num_rows, top_k = ids_TK.shape
    if not num_rows:
        return
    launch(
        choose, (num_rows,),
        logits.values, logits.row_stride, logits.part_stride,
        logits.values if bias_E is None else bias_E.float(), slots_T, ids_TK, weights_TK,
        num_experts, PARTS=logits.count, HAS_BIAS=bias_E is not None, K=top_k,
        E=power_of_two(num_experts), num_warps=1,
    )  # fmt: skip


class CudaRows(RowMaths):
    """bfloat16 rows."""

    def rms_norm(self, hidden_TD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
        out_TD = torch.empty(hidden_TD.shape, dtype=hidden_TD.dtype, device=hidden_TD.device)
        launch_norm(hidden_TD, None, None, weight_D, out_TD, eps)
        return out_TD

    def add_rms_norm(
        self, residual_TD: Tensor, added_TD: Tensor, weight_D: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        sum_TD, out_TD = torch.empty_like(residual_TD), torch.empty_like(residual_TD)
        launch_norm(residual_TD, Parts.of(added_TD), sum_TD, weight_D, out_TD, eps)
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
        num_rows, device = qkv_TA.shape[0], qkv_TA.device
        head_dim = qkv_TA.shape[1] // (num_heads + 2 * num_groups)
        q_THP, k_TGP, v_TGP = (
            torch.empty((num_rows, heads, head_dim), dtype=qkv_TA.dtype, device=device)
            for heads in (num_heads, num_groups, num_groups)
        )
        launch_heads(
            Parts.of(qkv_TA), norms, eps, cos_T, sin_T, torch.arange(num_rows, device=device),
            q_THP, (k_TGP, v_TGP), (k_TGP, v_TGP), num_groups * head_dim,
        )  # fmt: skip
        return q_THP, k_TGP, v_TGP

    def choose_experts(
        self, logits_TE: Tensor, bias_E: Tensor | None, top_k: int
    ) -> tuple[Tensor, Tensor]:
        num_rows, num_experts = logits_TE.shape
        device = logits_TE.device
        ids_TK = torch.empty((num_rows, top_k), dtype=torch.int32, device=device)
        weights_TK = torch.empty((num_rows, top_k), device=device)
        slots_T = torch.arange(num_rows, device=device)
        launch_choose(Parts.of(logits_TE), bias_E, slots_T, ids_TK, weights_TK, num_experts)
        return ids_TK, weights_TK
