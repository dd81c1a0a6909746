"""FP8 E4M3 weights with one float32 scale per block, as M2's checkpoints store them."""

import torch
from torch import Tensor

FP8_MAX = 448.0
"""Largest finite E4M3 number (float8_e4m3fn)."""


def scale_shape(rows: int, cols: int, block_rows: int, block_cols: int) -> tuple[int, int]:
    """Shape of `weight_scale_inv`: blocks at the edges may be partial."""
    return -(-rows // block_rows), -(-cols // block_cols)


def expand_scales(scales: Tensor, rows: int, cols: int, block_rows: int, block_cols: int) -> Tensor:
    """Each block's scale repeated over its elements: [rows, cols] float32."""
    wide = scales.float().repeat_interleave(block_rows, 0)[:rows]
    return wide.repeat_interleave(block_cols, 1)[:, :cols]


def dequantise(codes: Tensor, scales: Tensor, block_rows: int, block_cols: int) -> Tensor:
    """float32 weights: code times the scale of its block.

    Args:
        codes: float8_e4m3fn [rows, cols].
        scales: float32 [ceil(rows / block_rows), ceil(cols / block_cols)]. A
            multiplier, despite the checkpoint's suffix "inv".

    Source: checkpoint keys `*.weight`, `*.weight_scale_inv`.
    """
    rows, cols = codes.shape
    return codes.float() * expand_scales(scales, rows, cols, block_rows, block_cols)


def quantise(
    weights: Tensor, block_rows: int = 128, block_cols: int = 128
) -> tuple[Tensor, Tensor]:
    """Codes (float8_e4m3fn) and scales (float32) of a float matrix; largest of a block -> 448."""
    rows, cols = weights.shape
    grid = scale_shape(rows, cols, block_rows, block_cols)
    padded = torch.zeros(grid[0] * block_rows, grid[1] * block_cols)
    padded[:rows, :cols] = weights.float().abs()
    largest = padded.view(grid[0], block_rows, grid[1], block_cols).amax(dim=(1, 3))
    scales = largest / FP8_MAX
    # Zero for blocks of zeros, and where the quotient underflows: any scale will do.
    scales = torch.where(scales > 0, scales, torch.ones_like(scales))
    spread = expand_scales(scales, rows, cols, block_rows, block_cols)
    codes = (weights.float() / spread).clamp(-FP8_MAX, FP8_MAX).to(torch.float8_e4m3fn)
    return codes, scales


def has_nan_codes(codes: Tensor) -> bool:
    """True when any E4M3 code is one of the two NaNs (0x7F, 0xFF)."""
    return bool(((codes.view(torch.uint8) & 0x7F) == 0x7F).any())
