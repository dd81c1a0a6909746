"""A linear layer whose row results do not depend on how many rows there are."""

import torch
import torch.nn.functional as F
from torch import Tensor


def linear(rows_TD: Tensor, weight_OD: Tensor) -> Tensor:
    """rows @ weight^T in the rows' dtype.

    torch's bf16 GEMM on CPU gives a lone row other last bits than the same row
    among others, so a lone row is computed as one of two.
    """
    if rows_TD.shape[0] == 1 and rows_TD.dtype == torch.bfloat16 and rows_TD.device.type == "cpu":
        return F.linear(rows_TD.expand(2, -1), weight_OD)[:1]
    return F.linear(rows_TD, weight_OD)
