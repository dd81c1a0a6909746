"""Which launches attend to a step's rows? Decode rows together, then one chunk after another."""

import math
from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from moe_model.kernels.cuda import paged
from moe_model.maths.kv_layout import KvPages, PlainLayout
from moe_model.maths.paged_attention import AttendPages
from moe_model.maths.step_meta import ChunkMeta, StepMeta

_DECODE_QUERIES, _CHUNK_QUERIES = 16, 32
"""Queries of a product at least; as two warps compute them, with one matrix instruction."""


def can_attend(dtype: torch.dtype, layout: object, num_heads: int, num_groups: int) -> bool:
    """bfloat16 by position; heads whose size the products take."""
    if not isinstance(layout, PlainLayout) or layout.dtype != dtype:
        return False
    head_dim = layout.head_dim
    return (
        num_heads // num_groups <= _CHUNK_QUERIES and head_dim >= 16 and not head_dim & head_dim - 1
    )


@dataclass(frozen=True)
class CudaLayout(PlainLayout):
    """bfloat16 by position, stored by one kernel."""

    def store(
        self, keys: Tensor, values: Tensor, k_TGP: Tensor, v_TGP: Tensor, slots_T: Tensor
    ) -> None:
        num_rows, size = k_TGP.shape[0], self.num_kv_heads * self.head_dim
        k, v = k_TGP.flatten(1), v_TGP.flatten(1)
        paged.store_rows[(num_rows,)](
            k, v, k.stride(0), v.stride(0), keys, values, slots_T, size,
            C=triton.next_power_of_2(size),
        )  # fmt: skip


class CudaAttention:
    """Pages are read where they lie."""

    name = "the CUDA kernel"
    is_invariant = True

    def __init__(self, cache: KvPages, num_heads: int, num_groups: int):
        self._cache, self._num_groups = cache, num_groups
        self._heads = num_heads // num_groups

    def plan(self, meta: StepMeta) -> AttendPages:
        def attend(layer_idx: int, q_THP: Tensor) -> Tensor:
            out_THP = torch.empty_like(q_THP)
            pages = self._cache.pages(layer_idx)
            if meta.num_decode:
                self._decode(q_THP, pages, meta, out_THP)
            for chunk in meta.chunks:
                self._chunk(q_THP[chunk.rows], pages, chunk, out_THP[chunk.rows])
            return out_THP.flatten(1)

        return attend

    def _decode(
        self, q_THP: Tensor, pages: tuple[Tensor, Tensor], meta: StepMeta, out_THP: Tensor
    ) -> None:
        num_rows, (_, num_heads, head_dim) = meta.num_decode, q_THP.shape
        tables_BW, lens_B = meta.decode_tables_BW, meta.decode_lens_B
        num_spans = triton.cdiv(tables_BW.shape[1] * self._cache.block_size, paged.SPAN.value)
        shape = (num_rows, num_heads, num_spans)
        maxima, sums = (torch.empty(shape, device=q_THP.device) for _ in range(2))
        means = torch.empty((*shape, head_dim), device=q_THP.device)
        queries = max(_DECODE_QUERIES, triton.next_power_of_2(self._heads))
        paged.decode_spans[(num_rows, self._num_groups, num_spans)](
            q_THP, *pages, tables_BW, tables_BW.stride(0), lens_B, maxima, sums, means,
            1 / math.sqrt(head_dim), self._cache.block_size, pages[0].stride(0), self._num_groups,
            num_spans, HEADS=self._heads, M=queries, P=head_dim, num_warps=2, num_stages=2,
        )  # fmt: skip
        paged.add_spans[(num_rows, self._num_groups)](
            maxima, sums, means, lens_B, out_THP, num_spans, num_heads,
            HEADS=self._heads, M=queries, P=head_dim, num_warps=2,
        )  # fmt: skip

    def _chunk(
        self, q_THP: Tensor, pages: tuple[Tensor, Tensor], chunk: ChunkMeta, out_THP: Tensor
    ) -> None:
        num_rows, head_dim = q_THP.shape[0], q_THP.shape[2]
        tiles = triton.cdiv(num_rows, _CHUNK_QUERIES // self._heads)
        paged.attend_chunk[(tiles, self._num_groups)](
            q_THP, *pages, chunk.block_table_W, out_THP, chunk.num_cached - num_rows, num_rows,
            1 / math.sqrt(head_dim), self._cache.block_size, pages[0].stride(0), self._num_groups,
            HEADS=self._heads, M=_CHUNK_QUERIES, P=head_dim, num_warps=2, num_stages=2,
        )  # fmt: skip
