"""A linear layer whose row results do not depend on how many rows there are.

Weights are packed for the native kernels; or plain [O, D] tensors; or, for bfloat16 on a
CPU without those kernels, tensors in oneDNN's blocked layout (`pack`), which torch's bf16
GEMM reads 1.2 to 1.6 times as fast, with the bits of the plain ones.
"""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class PackedWeight(Protocol):
    """In a layout of a backend's own."""

    def linear(self, rows_TD: Tensor, out_dtype: torch.dtype) -> Tensor:
        """rows @ weight^T. Raises ValueError: shapes or dtypes that do not fit."""


LinearWeight = Tensor | PackedWeight

PACKED_ROWS = 5
"""Fewest rows given to oneDNN: four to six rows take it less time than one (bench/LOG.md)."""


def can_pack(dtype: torch.dtype, device: torch.device | str) -> bool:
    """Whether weights of this kind have a packed layout in this torch on this machine."""
    return (
        dtype == torch.bfloat16
        and torch.device(device).type == "cpu"
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def pack(weight_OD: Tensor) -> Tensor:
    """The weight in the layout `linear` reads fastest; itself where there is no better one.

    A packed weight is opaque (no indexing, no views) and takes the same memory.
    """
    if weight_OD.is_mkldnn or not can_pack(weight_OD.dtype, weight_OD.device):
        return weight_OD
    return torch.ops.mkldnn._reorder_linear_weight(weight_OD.contiguous(), PACKED_ROWS)


def linear(
    rows_TD: Tensor, weight_OD: LinearWeight, out_dtype: torch.dtype | None = None
) -> Tensor:
    """rows @ weight^T in `out_dtype`, by default the rows' own.

    torch's bf16 GEMM on CPU may give a lone row other last bits than the same row
    among others, so a lone row is computed as one of several.
    """
    out_dtype = out_dtype or rows_TD.dtype
    if not isinstance(weight_OD, Tensor):
        return weight_OD.linear(rows_TD, out_dtype)
    num_rows = rows_TD.shape[0]
    if weight_OD.is_mkldnn:
        if 0 < num_rows < PACKED_ROWS:
            rows_TD = F.pad(rows_TD, (0, 0, 0, PACKED_ROWS - num_rows))
        out_TO = torch.ops.mkldnn._linear_pointwise(rows_TD, weight_OD, None, "none", [], "")
        return out_TO[:num_rows].to(out_dtype)
    if num_rows == 1 and rows_TD.dtype == torch.bfloat16 and rows_TD.device.type == "cpu":
        return F.linear(rows_TD.expand(2, -1), weight_OD)[:1].to(out_dtype)
    return F.linear(rows_TD, weight_OD).to(out_dtype)
