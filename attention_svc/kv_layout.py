"""What does a block of the KV cache hold, in how many bytes?"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from minimax_m2.config import ModelConfig


class KVLayout(Protocol):
    """How the keys, or the values, of one position are stored: elements of `dtype` in `row_shape`."""

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def row_shape(self) -> tuple[int, ...]: ...

    def encode(self, rows_TGP: Tensor) -> Tensor:
        """[T, *row_shape] in `dtype`, rounded as it will be read."""

    def decode(self, stored: Tensor) -> Tensor:
        """[..., G, P] that attention computes with, from [..., *row_shape]."""


@dataclass(frozen=True)
class PlainLayout:
    """Every number as it is, in bf16 or float32."""

    num_kv_heads: int
    head_dim: int
    dtype: torch.dtype

    @classmethod
    def of(cls, config: ModelConfig, dtype: torch.dtype) -> "PlainLayout":
        return cls(config.num_kv_heads, config.head_dim, dtype)

    @property
    def row_shape(self) -> tuple[int, ...]:
        return (self.num_kv_heads, self.head_dim)

    def encode(self, rows_TGP: Tensor) -> Tensor:
        return rows_TGP.to(self.dtype)

    def decode(self, stored: Tensor) -> Tensor:
        return stored


@dataclass(frozen=True)
class Int8Layout:
    """Codes of all heads, then a float32 scale for each: half of bfloat16's bytes, and 4 a head.

    A number is off by at most 1/254 of its head's largest at that position.
    """

    num_kv_heads: int
    head_dim: int
    dtype: torch.dtype = torch.int8

    @property
    def row_shape(self) -> tuple[int, ...]:
        return (self.num_kv_heads * (self.head_dim + 4),)

    def encode(self, rows_TGP: Tensor) -> Tensor:
        wide_TGP = rows_TGP.float()
        scales_TG = wide_TGP.abs().amax(-1) / 127  # a NaN stays one: it is in the scale
        codes_TGP = (wide_TGP / scales_TG.clamp_min(1e-35)[..., None]).round().nan_to_num_(0)
        return torch.cat(
            (codes_TGP.to(torch.int8).flatten(1), scales_TG.contiguous().view(torch.int8)), dim=1
        )

    def decode(self, stored: Tensor) -> Tensor:
        shape = stored.shape[:-1]
        num_codes = self.num_kv_heads * self.head_dim
        codes = stored[..., :num_codes].reshape(*shape, self.num_kv_heads, self.head_dim)
        scales = stored[..., num_codes:].contiguous().view(torch.float32)
        return codes.float() * scales[..., None]


def choose_layout(kv_dtype: str, config: ModelConfig, dtype: torch.dtype) -> KVLayout:
    """For --kv-dtype; auto: the compute dtype."""
    if kv_dtype == "int8":
        return Int8Layout(config.num_kv_heads, config.head_dim)
    return PlainLayout.of(config, torch.bfloat16 if kv_dtype == "bf16" else dtype)


def block_bytes(layout: KVLayout, num_layers: int, block_size: int) -> int:
    """Memory of one block over all layers, keys and values."""
    return 2 * num_layers * block_size * math.prod(layout.row_shape) * layout.dtype.itemsize
