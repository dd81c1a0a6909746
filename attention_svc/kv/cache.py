"""Where are keys and values kept? In fixed blocks of positions, in the layout's format."""

import torch
from torch import Tensor

from attention_svc.kv.block_tables import BlockCopy
from moe_model.host_memory import zeros
from moe_model.maths.kv_layout import KVLayout


class KvCache:
    """K and V of all layers: [layers, blocks, *page_shape] each, in the layout's dtype."""

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
        shapes = [(num_layers, num_blocks, *page) for page in layout.page_shapes(block_size)]
        self._keys, self._values = (zeros(shape, layout.dtype, device) for shape in shapes)

    def copy(self, copy: BlockCopy) -> None:
        """Copy a block's first rows to another, with zeros after them (see `clear`)."""
        keys, values = self._keys[:, copy.target], self._values[:, copy.target]
        keys.copy_(self._keys[:, copy.source])
        values.copy_(self._values[:, copy.source])
        self.layout.forget(keys, values, copy.num_rows)

    def clear(self, blocks: list[int]) -> None:
        """Zero blocks that a step leaves partly filled.

        Rows beyond a sequence's end get weight 0, but 0 times another sequence's NaN is NaN.
        """
        self._keys[:, blocks] = 0
        self._values[:, blocks] = 0

    def store(self, layer_idx: int, k_TGP: Tensor, v_TGP: Tensor, slot_mapping_T: Tensor) -> None:
        """Write rows to their slots (block * block_size + offset), in the layout's format."""
        self.layout.store(*self.pages(layer_idx), k_TGP, v_TGP, slot_mapping_T)

    def pages(self, layer_idx: int) -> tuple[Tensor, Tensor]:
        """K and V in place: [blocks, *page_shape] each, in the layout's format."""
        return self._keys[layer_idx], self._values[layer_idx]

    def gather(self, layer_idx: int, block_tables: Tensor) -> tuple[Tensor, Tensor]:
        """K and V behind block tables [..., W]: [..., W * block_size, G, P] each."""
        # index_select: a third of the time of indexing with a tensor.
        keys, values = self.layout.load(
            *(pages.index_select(0, block_tables.flatten()) for pages in self.pages(layer_idx))
        )
        shape = (*block_tables.shape[:-1], -1, *keys.shape[-2:])
        return keys.reshape(shape), values.reshape(shape)
