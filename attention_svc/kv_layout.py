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


def block_bytes(layout: KVLayout, num_layers: int, block_size: int) -> int:
    """Memory of one block over all layers, keys and values."""
    return 2 * num_layers * block_size * math.prod(layout.row_shape) * layout.dtype.itemsize
