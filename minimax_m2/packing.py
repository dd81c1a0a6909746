"""How do stored weights become what the native kernels read? Also from FP8, block by block."""

from collections.abc import Sequence

import torch

from minimax_m2.kernel_choice import KERNEL_NAMES
from minimax_m2.kernels.cpu.packed import PackedMatrix, alternate, pack
from minimax_m2.quant import StoredExpert, StoredMatrix


def pack_linear(parts: Sequence[StoredMatrix], weight_format: str) -> PackedMatrix:
    """The outputs of all parts, one after another. Raises ValueError naming file and tensor."""
    weights = torch.cat([part.to(_precision(weight_format)) for part in parts])
    return pack(weights, KERNEL_NAMES[weight_format])


def pack_expert(expert: StoredExpert, weight_format: str) -> tuple[PackedMatrix, PackedMatrix]:
    """Gate and up with alternating panels, and down. Raises ValueError naming file and tensor."""
    dtype, name = _precision(weight_format), KERNEL_NAMES[weight_format]
    gate_up = pack(alternate(expert.w1.to(dtype), expert.w3.to(dtype)), name)
    return gate_up, pack(expert.w2.to(dtype), name)


def _precision(weight_format: str) -> torch.dtype:
    """What weights pass through on their way: rounded once."""
    return torch.bfloat16 if weight_format == "bfloat16" else torch.float32
