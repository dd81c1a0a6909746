"""The methods of moe_model/maths/row_maths.py as one native call each: bfloat16 on CPUs.

Same rounding points; sums in a fixed order, so that a row's bits depend on itself only.
"""

import functools
import struct

import torch
from torch import Tensor

from moe_model.kernels.cpu.library import need
from moe_model.maths.row_maths import RowMaths


class NativeRows(RowMaths):
    """Rows in bfloat16, one native call each."""

    def rms_norm(self, hidden_TD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
        """Raises ValueError: shapes or dtypes that do not fit."""
        hidden_TD = as_rows("hidden", hidden_TD, torch.bfloat16)
        num_rows, size = hidden_TD.shape
        weight_D = as_vector("weight", weight_D, torch.bfloat16, size)
        out_TD = torch.empty_like(hidden_TD)
        need().native.norm_rows(
            hidden_TD.data_ptr(),
            0,
            0,
            weight_D.data_ptr(),
            float_bits(eps),
            num_rows,
            size,
            0,
            out_TD.data_ptr(),
        )
        return out_TD

    def add_rms_norm(
        self, residual_TD: Tensor, added_TD: Tensor, weight_D: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        """Raises ValueError: shapes or dtypes that do not fit."""
        residual_TD, added_TD = _pair(residual_TD, added_TD)
        num_rows, size = residual_TD.shape
        weight_D = as_vector("weight", weight_D, torch.bfloat16, size)
        sum_TD, normed_TD = torch.empty_like(residual_TD), torch.empty_like(residual_TD)
        need().native.norm_rows(
            residual_TD.data_ptr(),
            added_TD.data_ptr(),
            int(added_TD.dtype == torch.float32),
            weight_D.data_ptr(),
            float_bits(eps),
            num_rows,
            size,
            sum_TD.data_ptr(),
            normed_TD.data_ptr(),
        )
        return sum_TD, normed_TD

    def add_rounded(self, residual_TD: Tensor, added_TD: Tensor) -> Tensor:
        """Raises ValueError: shapes or dtypes that do not fit."""
        residual_TD, added_TD = _pair(residual_TD, added_TD)
        sum_TD = torch.empty_like(residual_TD)
        need().native.norm_rows(
            residual_TD.data_ptr(),
            added_TD.data_ptr(),
            int(added_TD.dtype == torch.float32),
            0,
            0,
            *residual_TD.shape,
            sum_TD.data_ptr(),
            0,
        )
        return sum_TD

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
        """Raises ValueError: shapes or dtypes that do not fit."""
        qkv_TA = as_rows("qkv", qkv_TA, torch.bfloat16)
        num_rows, width = qkv_TA.shape
        if num_heads < 1 or num_groups < 1 or width % (num_heads + 2 * num_groups):
            raise ValueError(
                f"qkv of {width} numbers is not {num_heads} query "
                f"and 2 x {num_groups} key and value heads"
            )
        head_dim = width // (num_heads + 2 * num_groups)
        query_size, kv_size = num_heads * head_dim, num_groups * head_dim
        cos_T, sin_T = as_rows("cos", cos_T, torch.float32), as_rows("sin", sin_T, torch.float32)
        half = cos_T.shape[1]
        if cos_T.shape != sin_T.shape or cos_T.shape[0] != num_rows or 2 * half > head_dim:
            raise ValueError(
                f"cos and sin must be [{num_rows}, at most {head_dim // 2}], "
                f"not {list(cos_T.shape)} and {list(sin_T.shape)}"
            )
        q_norm = k_norm = None
        if norms is not None:
            q_norm = as_vector("q_norm", norms[0], torch.bfloat16, query_size)
            k_norm = as_vector("k_norm", norms[1], torch.bfloat16, kv_size)
        q_THP = torch.empty((num_rows, num_heads, head_dim), dtype=torch.bfloat16)
        k_TGP = torch.empty((num_rows, num_groups, head_dim), dtype=torch.bfloat16)
        need().native.split_heads(
            qkv_TA.data_ptr(),
            num_rows,
            width,
            0 if q_norm is None else q_norm.data_ptr(),
            0 if k_norm is None else k_norm.data_ptr(),
            float_bits(eps),
            cos_T.data_ptr(),
            sin_T.data_ptr(),
            half,
            num_heads,
            num_groups,
            head_dim,
            q_THP.data_ptr(),
            k_TGP.data_ptr(),
        )
        return q_THP, k_TGP, qkv_TA[:, query_size + kv_size :].view(num_rows, num_groups, head_dim)

    def choose_experts(
        self, logits_TE: Tensor, bias_E: Tensor | None, top_k: int
    ) -> tuple[Tensor, Tensor]:
        """Raises ValueError: shapes or dtypes that do not fit."""
        logits_TE = as_rows("logits", logits_TE, torch.float32)
        num_rows, num_experts = logits_TE.shape
        if not 1 <= top_k <= num_experts:
            raise ValueError(f"top_k must be 1 to {num_experts}, not {top_k}")
        if bias_E is not None:
            bias_E = as_vector("bias", bias_E, torch.float32, num_experts)
        ids_TK = torch.empty((num_rows, top_k), dtype=torch.int32)
        weights_TK = torch.empty((num_rows, top_k), dtype=torch.float32)
        need().native.choose_experts(
            logits_TE.data_ptr(),
            0 if bias_E is None else bias_E.data_ptr(),
            num_rows,
            num_experts,
            top_k,
            ids_TK.data_ptr(),
            weights_TK.data_ptr(),
        )
        return ids_TK, weights_TK


def as_rows(name: str, rows: Tensor, dtype: torch.dtype, size: int | None = None) -> Tensor:
    """Contiguous. Raises ValueError naming them: not rows of `size` numbers (None: of any)."""
    if rows.dim() != 2 or rows.dtype != dtype or rows.device.type != "cpu" or not rows.shape[1]:
        raise ValueError(
            f"{name} must be rows of {dtype} on the CPU, "
            f"not {rows.dtype} {list(rows.shape)} on {rows.device}"
        )
    if size is not None and rows.shape[1] != size:
        raise ValueError(f"{name} must be rows of {size} numbers, not {rows.shape[1]}")
    return rows.contiguous()


def as_vector(name: str, vector: Tensor, dtype: torch.dtype, size: int) -> Tensor:
    """Contiguous. Raises ValueError naming it."""
    if tuple(vector.shape) != (size,) or vector.dtype != dtype or vector.device.type != "cpu":
        raise ValueError(
            f"{name} must be {dtype} [{size}] on the CPU, "
            f"not {vector.dtype} {list(vector.shape)} on {vector.device}"
        )
    return vector.contiguous()


def check(name: str, tensor: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """Raises ValueError naming it: another dtype, shape or device. Asks as little as it can."""
    if tensor.dtype is not dtype or tensor.shape != shape or not tensor.is_cpu:
        raise ValueError(
            f"{name} must be {dtype} {list(shape)} on the CPU, "
            f"not {tensor.dtype} {list(tensor.shape)} on {tensor.device}"
        )


def check_contiguous(name: str, tensor: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """`check`, for a tensor whose address is handed on as it is. Raises ValueError naming it."""
    check(name, tensor, dtype, shape)
    if not tensor.is_contiguous():
        raise ValueError(f"{name} must be contiguous")


def _pair(residual_TD: Tensor, added_TD: Tensor) -> tuple[Tensor, Tensor]:
    residual_TD = as_rows("residual", residual_TD, torch.bfloat16)
    is_wide = added_TD.dtype == torch.float32
    added_TD = as_rows("added", added_TD, torch.float32 if is_wide else torch.bfloat16)
    if added_TD.shape != residual_TD.shape:
        raise ValueError(f"added must be {list(residual_TD.shape)}, not {list(added_TD.shape)}")
    return residual_TD, added_TD


@functools.lru_cache
def float_bits(value: float) -> int:
    """Of the float32: addresses and sizes cross as integers."""
    return struct.unpack("<I", struct.pack("<f", value))[0]
