"""Where are keys and values kept? In fixed blocks of positions, in the layout's format."""

import torch
from torch import Tensor

from attention_svc.kv.moves import BlockCopy
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

    @property
    def words(self) -> tuple[Tensor, Tensor]:
        """Keys and values in place as plain words: [layers, blocks, words of a page] each."""
        keys, values = self._keys.flatten(2), self._values.flatten(2)
        is_whole = keys.shape[2] * keys.itemsize % torch.int64.itemsize == 0
        word = torch.int64 if is_whole else torch.uint8
        return keys.view(word), values.view(word)

    def copy(self, copy: BlockCopy) -> None:
        """Copy a block's first rows to another, with zeros after them (see `clear`)."""
        self._keys[:, copy.target].copy_(self._keys[:, copy.source])
        self._values[:, copy.target].copy_(self._values[:, copy.source])
        self.forget(copy.target, copy.num_rows)

    def forget(self, block: int, num_kept: int) -> None:
        """Zero all but a block's first rows."""
        if num_kept < self.block_size:
            self.layout.forget(self._keys[:, block], self._values[:, block], num_kept)

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
