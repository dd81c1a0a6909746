"""What do fp8 weights look like? E4M3 codes with float32 scales; the packing is plain torch.

Per 128 inputs: float32 scale[32], then codes [64 pairs][64 bytes]. A pair's bytes lie as
native/fp8_avx512.cpp expands them: outputs 0-3 (two inputs each), 16-19, 4-7, 20-23, and so on.
"""

import torch
from torch import Tensor

from moe_model.formats import PANEL
from moe_model.quant import FP8_MAX, expand_scales

GROUP = 128


def pack_fp8(weight_POD: Tensor) -> Tensor:
    """[panels, 32, inputs] -> uint8 [panels, bytes]; each output has a scale per 128 inputs."""
    groups = weight_POD.float().view(*weight_POD.shape[:2], -1, GROUP)
    scales_POG = groups.abs().amax(-1) / FP8_MAX
    safe = torch.where(scales_POG > 0, scales_POG, torch.ones_like(scales_POG))
    codes = (groups / safe[..., None]).clamp(-FP8_MAX, FP8_MAX).to(torch.float8_e4m3fn)
    return join_fp8(codes.view(weight_POD.shape), safe)


def join_fp8(codes_POD: Tensor, scales_POG: Tensor) -> Tensor:
    """Codes (float8_e4m3fn) and float32 scales of each output's groups of 128 inputs."""
    panels, _, inputs = codes_POD.shape
    shaped = codes_POD.view(torch.uint8).view(panels, 2, 4, 4, inputs // GROUP, 64, 2)
    # outputs are [half][lane][4]; a pair wants [lane][half][4]
    laid = shaped.permute(0, 4, 5, 2, 1, 3, 6).reshape(panels, inputs // GROUP, -1)
    head = scales_POG.transpose(1, 2).contiguous().view(torch.uint8)
    return torch.cat((head, laid), dim=-1).view(panels, -1)


def split_fp8(data_PB: Tensor) -> tuple[Tensor, Tensor]:
    """The inverse of `join_fp8`."""
    panels = data_PB.shape[0]
    groups = data_PB.view(panels, -1, PANEL * 4 + GROUP * PANEL)
    scales_PGO = groups[..., : PANEL * 4].contiguous().view(torch.float32)
    laid = groups[..., PANEL * 4 :].reshape(panels, -1, 64, 4, 2, 4, 2)
    codes = laid.permute(0, 4, 3, 5, 1, 2, 6).contiguous().view(torch.float8_e4m3fn)
    return codes.view(panels, PANEL, -1), scales_PGO.transpose(1, 2)


def unpack_fp8(data_PB: Tensor) -> Tensor:
    """float32 [panels, 32, inputs]."""
    codes_POD, scales_POG = split_fp8(data_PB)
    values = codes_POD.float().view(*scales_POG.shape, GROUP)
    return (values * scales_POG[..., None]).view(codes_POD.shape)


def group_scales(scales: Tensor, rows: int, cols: int, block: tuple[int, int]) -> Tensor:
    """A checkpoint's block scales for each output and group of 128 inputs: [rows, groups].

    Raises:
        ValueError: blocks that end within a group.
    """
    if block[1] % GROUP and cols > block[1]:
        raise ValueError(f"fp8 takes scale blocks of a multiple of {GROUP} inputs, not {block[1]}")
    groups = -(-cols // GROUP)
    return expand_scales(scales, rows, groups, block[0], max(1, block[1] // GROUP))
