"""Causal grouped-query attention over a paged KV cache, read where it lies.

A query row's bits depend only on its own query, keys and values: not on the rows beside it, on
where a prompt was cut, on the block table or on threads. Every row is attended in the same tiles
and parts, counted from position 0 and merged in ascending order (native/attention.h).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from moe_model.kernels.cpu import library

MAX_HEAD_DIM = 256
HEAD_DIM_STEP = 16
SCALE_BYTES = 4
KEY_RUN = 16
"""Positions that lie side by side in tiles: a block has a multiple of them."""
_NUMBERS = {torch.bfloat16: 0, torch.float32: 1, torch.int8: 2}
_TILES = 3
TILE_DIMS = ("blocks", "G", "P / 2", "block_size", "2")


@dataclass(frozen=True)
class PagedRows:
    """Which rows attend to which pages: one of these for all layers of a step."""

    segments_S4: Tensor
    """int64: first row, rows, cached positions (its rows are the last), first entry in `tables`."""
    tables: Tensor
    """int64, flat: block ids of all segments, in order of their positions."""


def can_attend(
    query: torch.dtype, stored: torch.dtype, num_heads: int, num_groups: int, head_dim: int
) -> bool:
    """Whether `attend_paged` takes heads of this kind."""
    return (
        query in (torch.bfloat16, torch.float32)
        and stored in _NUMBERS
        and 0 < num_groups <= num_heads
        and num_heads % num_groups == 0
        and head_dim % HEAD_DIM_STEP == 0
        and 0 < head_dim <= MAX_HEAD_DIM
    )


def tile_shapes(
    num_groups: int, head_dim: int, block_size: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Of a block's keys and of its values in bfloat16 tiles: pairs as products take them.

    Keys [G, P / 2, block_size, 2], so that a vector holds one pair of numbers of 16 positions;
    values [G, block_size / 2, P, 2], one number of 2 positions beside each other.
    """
    return (
        (num_groups, head_dim // 2, block_size, 2),
        (num_groups, block_size // 2, head_dim, 2),
    )


def takes_tiles(
    query: torch.dtype, num_heads: int, num_groups: int, head_dim: int, block_size: int
) -> bool:
    """Whether this CPU's kernel reads bfloat16 tiles for heads of this kind."""
    here = library.load()
    return (
        here is not None
        and here.isa == "avx512"
        and query == torch.bfloat16
        and block_size % KEY_RUN == 0
        and can_attend(query, torch.bfloat16, num_heads, num_groups, head_dim)
    )


def store_tiles(
    k_TGP: Tensor, v_TGP: Tensor, keys: Tensor, values: Tensor, slots_T: Tensor
) -> None:
    """Write rows to their slots (block * block_size + place) of bfloat16 tiles.

    Raises:
        ValueError: shapes or dtypes that do not fit, or slots that are not there.
    """
    num_rows, num_groups, head_dim = k_TGP.shape
    num_blocks, block_size = keys.shape[0], keys.shape[3]
    shapes = tile_shapes(num_groups, head_dim, block_size)
    for name, pages, shape in zip(("keys", "values"), (keys, values), shapes, strict=True):
        if tuple(pages.shape) != (num_blocks, *shape) or pages.dtype != torch.bfloat16:
            raise ValueError(f"{name} must be bfloat16 [blocks, {', '.join(map(str, shape))}]")
        if not pages.is_contiguous() or pages.device.type != "cpu":
            raise ValueError(f"{name} must be contiguous and on the CPU")
    if v_TGP.shape != k_TGP.shape or tuple(slots_T.shape) != (num_rows,):
        raise ValueError("k, v and slots must have as many rows")
    if slots_T.dtype != torch.int64 or head_dim % 2 or block_size % 2:
        raise ValueError("slots must be int64, and head sizes and blocks even")
    k, v = (rows.to(torch.bfloat16).contiguous() for rows in (k_TGP, v_TGP))
    slots_T = slots_T.contiguous()
    library.need().native.store_tiles(
        k.data_ptr(),
        v.data_ptr(),
        keys.data_ptr(),
        values.data_ptr(),
        slots_T.data_ptr(),
        num_rows,
        num_blocks,
        block_size,
        num_groups,
        head_dim,
    )


def attend_paged(
    q_THP: Tensor, keys: Tensor, values: Tensor, num_groups: int, rows: PagedRows
) -> Tensor:
    """Attention of every row of the segments over its sequence's positions up to its own.

    Args:
        q_THP: bfloat16 or float32, after QK-norm and RoPE.
        keys, values: [blocks, block_size, G, P] in bfloat16 or float32, or int8
            [blocks, block_size, G * P + 4 * G]: codes, then a float32 scale for each key head;
            or bfloat16 tiles, which nothing has to lay out (`tile_shapes`).
        rows: rows that no segment names are left unset.

    Returns:
        [T, H * P] in q's dtype; scores, softmax and sums are float32. With bfloat16 queries on
        AVX-512 the softmax weights are rounded once to bfloat16, as in torch's fused operator.

    Raises:
        ValueError: shapes, dtypes, segments or tables that do not fit.
    """
    q_THP = q_THP.contiguous()
    out_THP = torch.empty_like(q_THP)
    library.need().native.attention(
        *page_arguments(q_THP, out_THP, keys, values, num_groups), *row_arguments(rows)
    )
    return out_THP.flatten(1)


def page_arguments(
    q_THP: Tensor, out: Tensor, keys: Tensor, values: Tensor, num_groups: int
) -> tuple[int, ...]:
    """What the native function takes before `row_arguments`, checked: see `attend_paged`.

    The first seven: kinds of queries and pages, addresses of q and the output, rows, addresses of
    keys and values.
    """
    if q_THP.dim() != 3:
        raise ValueError(f"q must be [T, H, P], not {list(q_THP.shape)}")
    num_rows, num_heads, head_dim = q_THP.shape
    if not can_attend(q_THP.dtype, keys.dtype, num_heads, num_groups, head_dim):
        raise ValueError(
            f"{num_heads} heads of {head_dim} {q_THP.dtype} over {num_groups} of {keys.dtype}: "
            "heads must be a multiple of key heads, "
            f"and of {HEAD_DIM_STEP} numbers, at most {MAX_HEAD_DIM}"
        )
    tiles = keys.dim() == len(TILE_DIMS)
    if tiles and not takes_tiles(q_THP.dtype, num_heads, num_groups, head_dim, keys.shape[3]):
        raise ValueError(f"tiles need AVX-512, bfloat16 queries and blocks of {KEY_RUN} positions")
    shapes = _page_shapes(keys, num_groups, head_dim)
    for name, pages, shape in zip(("keys", "values"), (keys, values), shapes, strict=True):
        if pages.shape[1:] != shape or len(pages) != len(keys):
            raise ValueError(
                f"{name} must be [blocks, {', '.join(map(str, shape))}], not {list(pages.shape)}"
            )
        if pages.dtype != keys.dtype or not pages.is_contiguous() or pages.device.type != "cpu":
            raise ValueError(f"{name} must be contiguous, on the CPU and of one dtype")
    if q_THP.device.type != "cpu":
        raise ValueError(f"q must be on the CPU, not {q_THP.device}")
    if not q_THP.is_contiguous() or out.numel() != q_THP.numel() or out.dtype != q_THP.dtype:
        raise ValueError("q must be contiguous, and the output of its size and dtype")
    num_blocks, block_size = keys.shape[0], keys.shape[3 if tiles else 1]
    block_bytes = math.prod(keys.shape[1:]) * keys.itemsize
    return (
        _NUMBERS[q_THP.dtype],
        _TILES if tiles else _NUMBERS[keys.dtype],
        q_THP.data_ptr(),
        out.data_ptr(),
        num_rows,
        keys.data_ptr(),
        values.data_ptr(),
        num_blocks,
        block_size,
        block_bytes // block_size if block_size else 0,
        num_heads,
        num_groups,
        head_dim,
    )


def row_arguments(rows: PagedRows) -> tuple[int, ...]:
    """The rest, checked; that rows, blocks and positions are there is for the native function."""
    segments, tables = rows.segments_S4, rows.tables
    for name, numbers, dims in (("segments", segments, 2), ("tables", tables, 1)):
        if numbers.dtype != torch.int64 or numbers.dim() != dims or not numbers.is_contiguous():
            raise ValueError(f"{name} must be int64, contiguous and of {dims} dimensions")
        if numbers.device.type != "cpu":
            raise ValueError(f"{name} must be on the CPU, not {numbers.device}")
    if segments.shape[1] != 4:
        raise ValueError(f"segments must be [S, 4], not {list(segments.shape)}")
    return (tables.data_ptr(), tables.numel(), segments.data_ptr(), segments.shape[0])


def _page_shapes(
    keys: Tensor, num_groups: int, head_dim: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What a block of keys, and of values, must be like."""
    if keys.dim() == len(TILE_DIMS):
        return tile_shapes(num_groups, head_dim, keys.shape[3])
    is_coded = keys.dtype == torch.int8
    row = (num_groups * (head_dim + SCALE_BYTES),) if is_coded else (num_groups, head_dim)
    shape = (keys.shape[1] if keys.dim() > 1 else 0, *row)
    return shape, shape
