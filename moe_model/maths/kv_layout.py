"""What does a block of the KV cache hold, where in it, in how many bytes?"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from moe_model.config import ModelConfig

Shape = tuple[int, ...]


class KVLayout(Protocol):
    """How the keys and the values of a block of positions are stored: elements of `dtype`."""

    @property
    def dtype(self) -> torch.dtype: ...

    def page_shapes(self, block_size: int) -> tuple[Shape, Shape]:
        """Of a block's keys and of its values: equally many elements."""

    def store(
        self, keys: Tensor, values: Tensor, k_TGP: Tensor, v_TGP: Tensor, slots_T: Tensor
    ) -> None:
        """Write rows to slots (block * block_size + place) of pages, rounded to `dtype`."""

    def load(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values, [..., block_size, G, P] each, from pages [..., *page_shape]."""

    def forget(self, keys: Tensor, values: Tensor, num_kept: int) -> None:
        """Zero all but the first positions of pages [..., *page_shape]."""


class KvPages(Protocol):
    """Keys and values of all layers, in blocks (attention_svc/kv/cache.py)."""

    layout: KVLayout
    block_size: int

    def store(self, layer_idx: int, k_TGP: Tensor, v_TGP: Tensor, slot_mapping_T: Tensor) -> None:
        """Write rows to their slots (block * block_size + offset), in the layout's format."""

    def pages(self, layer_idx: int) -> tuple[Tensor, Tensor]:
        """K and V where they lie: [blocks, *page_shape] each, in the layout's format."""

    def gather(self, layer_idx: int, block_tables: Tensor) -> tuple[Tensor, Tensor]:
        """K and V behind block tables [..., W]: [..., W * block_size, G, P] each."""


class _ByPosition(ABC):
    """Pages that hold one position after another: [block_size, *row_shape], keys as values."""

    @property
    @abstractmethod
    def row_shape(self) -> Shape: ...

    @abstractmethod
    def encode(self, rows_TGP: Tensor) -> Tensor: ...

    @abstractmethod
    def decode(self, stored: Tensor) -> Tensor: ...

    def page_shapes(self, block_size: int) -> tuple[Shape, Shape]:
        shape = (block_size, *self.row_shape)
        return shape, shape

    def store(
        self, keys: Tensor, values: Tensor, k_TGP: Tensor, v_TGP: Tensor, slots_T: Tensor
    ) -> None:
        for pages, rows_TGP in ((keys, k_TGP), (values, v_TGP)):
            pages.view(-1, *self.row_shape)[slots_T] = self.encode(rows_TGP)

    def load(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        return self.decode(keys), self.decode(values)

    def forget(self, keys: Tensor, values: Tensor, num_kept: int) -> None:
        dim = -1 - len(self.row_shape)
        for pages in (keys, values):
            pages.narrow(dim, num_kept, pages.shape[dim] - num_kept).zero_()


@dataclass(frozen=True)
class PlainLayout(_ByPosition):
    """Every number as it is, in bf16 or float32."""

    num_kv_heads: int
    head_dim: int
    dtype: torch.dtype

    @classmethod
    def of(cls, config: ModelConfig, dtype: torch.dtype) -> "PlainLayout":
        return cls(config.num_kv_heads, config.head_dim, dtype)

    @property
    def row_shape(self) -> Shape:
        return (self.num_kv_heads, self.head_dim)

    def encode(self, rows_TGP: Tensor) -> Tensor:
        return rows_TGP.to(self.dtype)

    def decode(self, stored: Tensor) -> Tensor:
        return stored


@dataclass(frozen=True)
class Int8Layout(_ByPosition):
    """Codes of all heads, then a float32 scale for each: half of bfloat16's bytes, and 4 a head.

    A number is off by at most 1/254 of its head's largest at that position.
    """

    num_kv_heads: int
    head_dim: int
    dtype: torch.dtype = torch.int8

    @property
    def row_shape(self) -> Shape:
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


def block_bytes(layout: KVLayout, num_layers: int, block_size: int) -> int:
    """Memory of one block over all layers, keys and values."""
    shapes = layout.page_shapes(block_size)
    return num_layers * sum(math.prod(shape) for shape in shapes) * layout.dtype.itemsize
