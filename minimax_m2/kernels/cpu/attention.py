"""Causal grouped-query attention over a paged KV cache, read where it lies.

A query row's bits depend on its own query, keys and values only: not on the rows beside it, on where a
prompt was cut, on the block table or on threads. Every row is attended in the same tiles and parts, counted
from position 0 and merged in ascending order (native/attention.h).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from minimax_m2.kernels.cpu.library import need

MAX_HEAD_DIM = 256
HEAD_DIM_STEP = 16
SCALE_BYTES = 4
_NUMBERS = {torch.bfloat16: 0, torch.float32: 1, torch.int8: 2}


@dataclass(frozen=True)
class PagedRows:
    """Which rows attend to which pages: one of these for all layers of a step."""

    segments_S4: Tensor
    """int64: first row, rows, cached positions (these rows the last of them), first entry in `tables`."""
    tables: Tensor
    """int64, flat: block ids of all segments, in order of their positions."""


def can_attend(
    query: torch.dtype, stored: torch.dtype, num_heads: int, num_groups: int, head_dim: int
) -> bool:
    """Whether `attend_paged` takes heads of this kind."""
    return (
        query in (torch.bfloat16, torch.float32)
        and stored in _NUMBERS
        and num_groups > 0
        and num_heads % num_groups == 0
        and head_dim % HEAD_DIM_STEP == 0
        and 0 < head_dim <= MAX_HEAD_DIM
    )


def attend_paged(
    q_THP: Tensor, keys: Tensor, values: Tensor, num_groups: int, rows: PagedRows
) -> Tensor:
    """Attention of every row of the segments over its sequence's positions up to its own.

    Args:
        q_THP: bfloat16 or float32, after QK-norm and RoPE.
        keys, values: [blocks, block_size, G, P] in bfloat16 or float32, or int8
            [blocks, block_size, G * P + 4 * G]: codes, then a float32 scale for each key head.
        rows: rows that no segment names are left unset.

    Returns:
        [T, H * P] in q's dtype; scores, softmax and sums are float32. With bfloat16 queries on
        AVX-512 the softmax weights are rounded once to bfloat16, as in torch's fused operator.

    Raises:
        ValueError: shapes, dtypes, segments or tables that do not fit.
    """
    library = need()
    if q_THP.dim() != 3:
        raise ValueError(f"q must be [T, H, P], not {list(q_THP.shape)}")
    num_rows, num_heads, head_dim = q_THP.shape
    if not can_attend(q_THP.dtype, keys.dtype, num_heads, num_groups, head_dim):
        raise ValueError(
            f"{num_heads} heads of {head_dim} {q_THP.dtype} over {num_groups} of {keys.dtype}: heads "
            f"must be a multiple of key heads and of {HEAD_DIM_STEP} numbers, at most {MAX_HEAD_DIM}"
        )
    row_shape = (
        [num_groups * (head_dim + SCALE_BYTES)]
        if keys.dtype == torch.int8
        else [num_groups, head_dim]
    )
    for name, pages in (("keys", keys), ("values", values)):
        if pages.dim() < 3 or list(pages.shape[2:]) != row_shape or pages.shape != keys.shape:
            raise ValueError(
                f"{name} must be [blocks, block_size, {', '.join(map(str, row_shape))}], not {list(pages.shape)}"
            )
        if pages.dtype != keys.dtype or not pages.is_contiguous() or pages.device.type != "cpu":
            raise ValueError(f"{name} must be contiguous, on the CPU and of one dtype")
    segments, tables = rows.segments_S4, rows.tables
    for name, numbers, dims in (("segments", segments, 2), ("tables", tables, 1)):
        if numbers.dtype != torch.int64 or numbers.dim() != dims or not numbers.is_contiguous():
            raise ValueError(f"{name} must be int64, contiguous and of {dims} dimensions")
    if segments.shape[1] != 4:
        raise ValueError(f"segments must be [S, 4], not {list(segments.shape)}")
    if q_THP.device.type != "cpu":
        raise ValueError(f"q must be on the CPU, not {q_THP.device}")
    q_THP = q_THP.contiguous()
    out_TA = torch.empty((num_rows, num_heads * head_dim), dtype=q_THP.dtype)
    num_blocks, block_size = keys.shape[:2]
    library.native.attention(
        _NUMBERS[q_THP.dtype], _NUMBERS[keys.dtype], q_THP.data_ptr(), out_TA.data_ptr(), num_rows,
        keys.data_ptr(), values.data_ptr(), num_blocks, block_size,
        keys[0, 0].numel() * keys.itemsize if num_blocks and block_size else 0,
        num_heads, num_groups, head_dim, tables.data_ptr(), tables.numel(),
        segments.data_ptr(), segments.shape[0],
    )  # fmt: skip
    return out_TA
