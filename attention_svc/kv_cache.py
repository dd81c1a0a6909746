"""Where keys and values live: fixed blocks of positions, handed out by a free list."""

import math

import numpy as np
import torch
from torch import Tensor

from minimax_m2.config import ModelConfig


class BlockPool:
    """Which blocks are free. No tensors."""

    def __init__(self, num_blocks: int):
        if num_blocks < 1:
            raise ValueError("the KV cache needs at least one block")
        self.num_blocks = num_blocks
        self._free = list(range(num_blocks - 1, -1, -1))

    @property
    def num_free(self) -> int:
        return len(self._free)

    def take(self, count: int) -> list[int] | None:
        """`count` blocks, or None when there are not that many."""
        if count > len(self._free):
            return None
        return [self._free.pop() for _ in range(count)]

    def give_back(self, blocks: list[int]) -> None:
        self._free.extend(reversed(blocks))
        assert len(self._free) <= self.num_blocks, "a block was freed twice"


class KvCache:
    """K and V of all layers: [layers, 2, blocks, block_size, G, P] in the cache dtype."""

    def __init__(
        self,
        config: ModelConfig,
        *,
        num_blocks: int,
        block_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ):
        self.block_size = block_size
        shape = (config.num_layers, 2, num_blocks, block_size, config.num_kv_heads, config.head_dim)
        if device.type == "cpu":
            # numpy's zeros are mapped, not written: memory is used as the cache fills.
            raw = torch.from_numpy(np.zeros(math.prod(shape) * dtype.itemsize, dtype=np.uint8))
            self._data = raw.view(dtype).view(shape)
        else:
            self._data = torch.zeros(shape, dtype=dtype, device=device)

    @staticmethod
    def block_bytes(config: ModelConfig, block_size: int, dtype: torch.dtype) -> int:
        """Memory of one block over all layers."""
        return config.kv_bytes_per_token(dtype.itemsize) * block_size

    def clear(self, blocks: list[int]) -> None:
        """Zero blocks that change hands: what lies beyond a sequence's end in its last block is
        masked to weight 0, and 0 times another sequence's NaN would still be NaN."""
        self._data[:, :, blocks] = 0

    def store(self, layer_idx: int, k_TGP: Tensor, v_TGP: Tensor, slot_mapping_T: Tensor) -> None:
        """Write rows to their slots (block * block_size + offset), rounded to the cache dtype."""
        k_cache, v_cache = self._data[layer_idx]
        k_cache.view(-1, *k_TGP.shape[1:])[slot_mapping_T] = k_TGP.to(k_cache.dtype)
        v_cache.view(-1, *v_TGP.shape[1:])[slot_mapping_T] = v_TGP.to(v_cache.dtype)

    def gather(self, layer_idx: int, block_tables: Tensor) -> tuple[Tensor, Tensor]:
        """K and V behind block tables [..., W]: [..., W * block_size, G, P] each."""
        k_cache, v_cache = self._data[layer_idx]
        shape = (*block_tables.shape[:-1], -1, *k_cache.shape[2:])
        return k_cache[block_tables].view(shape), v_cache[block_tables].view(shape)
