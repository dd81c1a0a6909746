"""rows @ weight^T for a packed weight: a row's bits depend on no other row and no thread."""

import torch
from torch import Tensor

from moe_model.kernels.cpu.library import need
from moe_model.kernels.cpu.packed import PackedMatrix


def linear(rows_TD: Tensor, weight: PackedMatrix, out_dtype: torch.dtype | None = None) -> Tensor:
    """float32 accumulation, rounded once.

    Args:
        rows_TD: in the format's `row_dtype` (bfloat16; float32 for f32), on the CPU.
        out_dtype: bfloat16 or float32; the rows' own by default.

    Raises:
        ValueError: shapes or dtypes that do not fit, or no kernel for the format here.
    """
    # Streamed weights push this code out of the caches between two calls: each operator of torch's
    # here is 10 to 100 us in which no weight is read, so the usual case asks as little as it can.
    weights = weight.weights
    out_dtype = out_dtype or rows_TD.dtype
    shape = rows_TD.shape
    if len(shape) != 2 or shape[1] != weight.num_inputs:
        raise ValueError(f"rows must be [T, {weight.num_inputs}], not {list(shape)}")
    if rows_TD.dtype is not weights.row_dtype or not rows_TD.is_cpu:
        raise ValueError(
            f"rows for {weight.format} weights are {weights.row_dtype} on the CPU, "
            f"not {rows_TD.dtype} on {rows_TD.device}"
        )
    if out_dtype not in (torch.bfloat16, torch.float32):
        raise ValueError(f"out_dtype must be bfloat16 or float32, not {out_dtype}")
    rows_TD = rows_TD.contiguous()
    num_rows = shape[0]
    out_TO = torch.empty((num_rows, weight.num_outputs), dtype=out_dtype)
    if num_rows:
        need().native.linear(
            weights.id, rows_TD.data_ptr(), num_rows, weight.num_inputs, weight.num_outputs,
            weight.address, out_TO.data_ptr(), int(out_dtype is torch.float32),
        )  # fmt: skip
    return out_TO
