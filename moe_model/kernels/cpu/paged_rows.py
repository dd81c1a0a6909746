"""How do keys and values lie for the native kernel, and which pages does each row attend to?"""

from dataclasses import dataclass

import torch
from torch import Tensor

from moe_model.kernels.cpu.attention import PagedRows, attend_paged, store_tiles, tile_shapes
from moe_model.maths.kv_layout import KvPages, Shape
from moe_model.maths.paged_attention import AttendPages
from moe_model.maths.step_meta import StepMeta


@dataclass(frozen=True)
class TiledLayout:
    """bfloat16 as the native kernel's products read it (attention.py): nothing to lay out."""

    num_kv_heads: int
    head_dim: int
    dtype: torch.dtype = torch.bfloat16

    def page_shapes(self, block_size: int) -> tuple[Shape, Shape]:
        return tile_shapes(self.num_kv_heads, self.head_dim, block_size)

    def store(
        self, keys: Tensor, values: Tensor, k_TGP: Tensor, v_TGP: Tensor, slots_T: Tensor
    ) -> None:
        store_tiles(k_TGP, v_TGP, keys, values, slots_T)

    def load(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        # Keys [..., G, P / 2, S, 2] and values [..., G, S / 2, P, 2].
        return (
            keys.movedim(-2, -4).flatten(-2),
            values.movedim((-3, -1), (-4, -3)).flatten(-4, -3),
        )

    def forget(self, keys: Tensor, values: Tensor, num_kept: int) -> None:
        keys[..., num_kept:, :] = 0
        values[..., (num_kept + 1) // 2 :, :, :] = 0
        if num_kept % 2:
            values[..., num_kept // 2, :, 1] = 0


class NativeAttention:
    """Pages are read where they lie, in any layout."""

    name = "the native kernel"
    is_invariant = True
    reads_unwritten = True

    def __init__(self, cache: KvPages, num_groups: int):
        self._cache, self._num_groups = cache, num_groups

    def plan(self, meta: StepMeta) -> AttendPages:
        rows = paged_rows(meta)
        return lambda layer_idx, q_THP: attend_paged(
            q_THP, *self._cache.pages(layer_idx), self._num_groups, rows
        )


def paged_rows(meta: StepMeta) -> PagedRows:
    """One plan for all layers: decode rows first, a segment each, then the chunks."""
    num_decode, width = meta.decode_tables_BW.shape
    # Tables are padded to one width: a row's begins at a multiple of it.
    lens = enumerate(meta.decode_lens_B.tolist())
    segments = [[row, 1, num_cached, row * width] for row, num_cached in lens]
    first = num_decode * width
    for chunk in meta.chunks:
        num_rows = chunk.rows.stop - chunk.rows.start
        segments.append([chunk.rows.start, num_rows, chunk.num_cached, first])
        first += chunk.block_table_W.shape[0]
    tables = meta.decode_tables_BW.flatten()
    if meta.chunks:
        tables = torch.cat([tables, *(chunk.block_table_W for chunk in meta.chunks)])
    return PagedRows(torch.tensor(segments, dtype=torch.int64), tables)
