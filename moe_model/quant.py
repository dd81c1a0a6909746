"""How are FP8 E4M3 weights stored? Codes, and one float32 scale for each block."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

FP8_MAX = 448.0
"""Largest finite E4M3 number (float8_e4m3fn)."""


@dataclass(frozen=True, kw_only=True)
class StoredMatrix:
    """A weight [O, I] as its checkpoint holds it; the memory is the mapped file's."""

    values: Tensor  # any float dtype, or E4M3 codes without NaN
    scales: Tensor | None  # float32, finite and > 0, of blocks of codes
    block: tuple[int, int]  # rows and columns that share a scale
    where: str  # file and tensor, for messages

    def to(self, dtype: torch.dtype) -> Tensor:
        """A fresh tensor in `dtype`. Raises ValueError when a value is not finite."""
        if self.scales is None:
            return self.values.to(dtype, copy=True)
        weight = dequantise(self.values, self.scales, *self.block)
        if not all_finite(weight):
            raise ValueError(f"{self.where}: values times their scales must be finite")
        return weight.to(dtype)


@dataclass(frozen=True, kw_only=True)
class StoredExpert:
    """One piece: w1 (gate) and w3 (up) are [F, D], w2 (down) is [D, F]."""

    w1: StoredMatrix
    w3: StoredMatrix
    w2: StoredMatrix

    def to(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """w13 [2F, D] (gate rows, then up rows) and w2 [D, F]."""
        return torch.cat((self.w1.to(dtype), self.w3.to(dtype))), self.w2.to(dtype)


def all_finite(values: Tensor) -> bool:
    """Whether all are finite: a cheap sum first, the exact check only if that is not finite."""
    return math.isfinite(values.sum(dtype=torch.float32)) or bool(torch.isfinite(values).all())


def scale_shape(rows: int, cols: int, block_rows: int, block_cols: int) -> tuple[int, int]:
    """Shape of the scales: blocks at the edges may be partial."""
    return -(-rows // block_rows), -(-cols // block_cols)


def expand_scales(scales: Tensor, rows: int, cols: int, block_rows: int, block_cols: int) -> Tensor:
    """Each block's scale repeated over its elements: [rows, cols] float32."""
    wide = scales.float().repeat_interleave(block_rows, 0)[:rows]
    return wide.repeat_interleave(block_cols, 1)[:, :cols]


def dequantise(codes: Tensor, scales: Tensor, block_rows: int, block_cols: int) -> Tensor:
    """float32 weights: code times the scale of its block.

    Args:
        codes: float8_e4m3fn [rows, cols].
        scales: float32 [ceil(rows / block_rows), ceil(cols / block_cols)]; multipliers, even
            where checkpoints call them "inv".
    """
    rows, cols = codes.shape
    return codes.float() * expand_scales(scales, rows, cols, block_rows, block_cols)


def quantise(
    weights: Tensor, block_rows: int = 128, block_cols: int = 128
) -> tuple[Tensor, Tensor]:
    """Codes (float8_e4m3fn) and scales (float32); the largest of a block becomes 448.

    The same bits on every device.
    """
    rows, cols = weights.shape
    grid = scale_shape(rows, cols, block_rows, block_cols)
    padded = torch.zeros(grid[0] * block_rows, grid[1] * block_cols, device=weights.device)
    padded[:rows, :cols] = weights.float().abs()
    largest = padded.view(grid[0], block_rows, grid[1], block_cols).amax(dim=(1, 3))
    # On GPUs torch divides by a plain number by way of its reciprocal.
    scales = largest / torch.full_like(largest, FP8_MAX)
    # Zero for blocks of zeros and where the quotient underflows: there any scale will do.
    scales = torch.where(scales > 0, scales, torch.ones_like(scales))
    spread = expand_scales(scales, rows, cols, block_rows, block_cols)
    codes = (weights.float() / spread).clamp(-FP8_MAX, FP8_MAX).to(torch.float8_e4m3fn)
    return codes, scales


def has_nan_codes(codes: Tensor) -> bool:
    """True when any E4M3 code is one of the two NaNs (0x7F, 0xFF)."""
    return bool(((codes.view(torch.uint8) & 0x7F) == 0x7F).any())
