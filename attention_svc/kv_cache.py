"""Where keys and values live: fixed blocks of positions, in the layout's format."""

import math

import numpy as np
import torch
from torch import Tensor

from attention_svc.block_tables import BlockCopy
from attention_svc.kv_layout import KVLayout


class KvCache:
    """K and V of all layers: [layers, 2, blocks, block_size, *row_shape] in the layout's dtype."""

    def __init__(
        self,
        layout: KVLayout,
        *,
        num_layers: int,
        num_blocks: int,
        block_size: int,
        device: torch.device,
    ):
        self.layout = layout
        self.block_size = block_size
        shape = (num_layers, 2, num_blocks, block_size, *layout.row_shape)
        if device.type == "cpu":
            # numpy's zeros are mapped, not written: memory is used as the cache fills.
            size_bytes = math.prod(shape) * layout.dtype.itemsize
            raw = torch.from_numpy(np.zeros(size_bytes, dtype=np.uint8))
            self._data = raw.view(layout.dtype).view(shape)
        else:
            self._data = torch.zeros(shape, dtype=layout.dtype, device=device)

    def copy(self, copy: BlockCopy) -> None:
        """Give a block another one's first rows, and zeros after them (see `clear`)."""
        rows = slice(0, copy.num_rows)
        self._data[:, :, copy.target, rows] = self._data[:, :, copy.source, rows]
        self._data[:, :, copy.target, copy.num_rows :] = 0

    def clear(self, blocks: list[int]) -> None:
        """Zero blocks that a step leaves partly filled: what lies beyond a sequence's end is
        masked to weight 0, and 0 times another sequence's NaN would still be NaN."""
        self._data[:, :, blocks] = 0

    def store(self, layer_idx: int, k_TGP: Tensor, v_TGP: Tensor, slot_mapping_T: Tensor) -> None:
        """Write rows to their slots (block * block_size + offset), in the layout's format."""
        for stored, rows_TGP in zip(self._data[layer_idx], (k_TGP, v_TGP), strict=True):
            stored.view(-1, *self.layout.row_shape)[slot_mapping_T] = self.layout.encode(rows_TGP)

    def pages(self, layer_idx: int) -> tuple[Tensor, Tensor]:
        """K and V where they lie: [blocks, block_size, *row_shape] each, in the layout's format."""
        keys, values = self._data[layer_idx]
        return keys, values

    def gather(self, layer_idx: int, block_tables: Tensor) -> tuple[Tensor, Tensor]:
        """K and V behind block tables [..., W]: [..., W * block_size, G, P] each."""
        shape = (*block_tables.shape[:-1], -1, *self.layout.row_shape)
        # index_select: a third of the time of indexing with a tensor.
        k_TGP, v_TGP = (
            self.layout.decode(stored.index_select(0, block_tables.flatten()).view(shape))
            for stored in self._data[layer_idx]
        )
        return k_TGP, v_TGP
