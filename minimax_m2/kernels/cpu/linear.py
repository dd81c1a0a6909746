"""rows @ weight^T for a packed weight: a row's bits depend on no other row and no thread."""

import torch
from torch import Tensor

from minimax_m2.kernels.cpu.library import need
from minimax_m2.kernels.cpu.packed import PackedMatrix


def linear(rows_TD: Tensor, weight: PackedMatrix, out_dtype: torch.dtype | None = None) -> Tensor:
    """float32 accumulation, rounded once.

    Args:
        rows_TD: in the format's `row_dtype` (bfloat16; float32 for f32), on the CPU.
        out_dtype: bfloat16 or float32; the rows' own by default.

    Raises:
        ValueError: shapes or dtypes that do not fit, or no kernel for the format here.
    """
    library = need()
    weights = weight.weights
    out_dtype = out_dtype or rows_TD.dtype
    if rows_TD.dim() != 2 or rows_TD.shape[1] != weight.num_inputs:
        raise ValueError(f"rows must be [T, {weight.num_inputs}], not {list(rows_TD.shape)}")
    if rows_TD.dtype != weights.row_dtype or rows_TD.device.type != "cpu":
        raise ValueError(
            f"rows for {weight.format} weights are {weights.row_dtype} on the CPU, "
            f"not {rows_TD.dtype} on {rows_TD.device}"
        )
    if out_dtype not in (torch.bfloat16, torch.float32):
        raise ValueError(f"out_dtype must be bfloat16 or float32, not {out_dtype}")
    rows_TD = rows_TD.contiguous()
    num_rows = rows_TD.shape[0]
    out_TO = torch.empty((num_rows, weight.num_outputs), dtype=out_dtype)
    if num_rows:
        library.native.linear(
            weights.id, rows_TD.data_ptr(), num_rows, weight.num_inputs, weight.num_outputs,
            weight.data.data_ptr(), out_TO.data_ptr(), int(out_dtype == torch.float32),
        )  # fmt: skip
    return out_TO
