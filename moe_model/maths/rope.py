"""Partial rotary position embedding with half-split pairs."""

import torch
from torch import Tensor


def rope_frequencies(rotary_dim: int, theta: float, device: torch.device | str = "cpu") -> Tensor:
    """Inverse frequencies, float32 [rotary_dim / 2]: theta^(-2i / rotary_dim)."""
    exponents = torch.arange(0, rotary_dim, 2, dtype=torch.float32, device=device) / rotary_dim
    return 1.0 / theta**exponents


def rope_cos_sin(positions_T: Tensor, frequencies: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines, float32 [T, rotary_dim / 2] each, for integer positions."""
    angles = torch.outer(positions_T.float(), frequencies)
    return angles.cos(), angles.sin()


def apply_rope(heads_THP: Tensor, cos_T: Tensor, sin_T: Tensor) -> Tensor:
    """Rotate dims i and i + rotary_dim/2 of every head; dims beyond rotary_dim pass through.

    Computed in float32, rounded once to the input's dtype. Heads may be query
    or key heads.

    Source: `ModelConfig.rotary_dim`; Transformers `apply_rotary_pos_emb`.
    """
    half = cos_T.shape[-1]
    cos, sin = cos_T[:, None, :], sin_T[:, None, :]
    first, second = heads_THP[..., :half].float(), heads_THP[..., half : 2 * half].float()
    rotated = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return torch.cat((rotated.to(heads_THP.dtype), heads_THP[..., 2 * half :]), dim=-1)
