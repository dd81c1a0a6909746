"""Attention over pages, tile by tile: no row's context is ever gathered as a whole.

Decode: every sequence's context is cut into tiles of TILE_POSITIONS; the last one is
padded to a power of two of blocks, not to the longest sequence. Tiles of equal width
are attended together, sequences mixed, and merged by their log-sum-exp. A chunk attends
to itself (causal) and, tile by tile and unmasked, to its cached prefix: there is never a
chunk x context mask. Work grows with the tokens that are seen; what is gathered at once
is bounded by GATHER_POSITIONS.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from moe_model.maths.attention_parts import Part, attend_part, merge, merge_by_row
from moe_model.maths.kv_layout import KvPages
from moe_model.maths.step_meta import StepMeta

TILE_POSITIONS = 512
"""Keys of one decode row attended at once."""
PREFIX_POSITIONS = 2048
"""Keys of a chunk's prefix attended at once."""
GATHER_POSITIONS = 8192
"""Most positions gathered at once in decode: bounds the copies (32 MiB at M2's sizes in bf16)."""

Gather = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Block tables [..., W] -> K and V, [..., W * block_size, G, P] each."""

AttendPages = Callable[[int, Tensor], Tensor]
"""(layer_idx, q_THP) of a step's rows, whose own K and V are stored -> [T, H*P] in q's dtype."""


class PagedAttention(Protocol):
    """Attends to the pages of a cache."""

    @property
    def name(self) -> str:
        """What attends, for the log."""

    @property
    def is_invariant(self) -> bool:
        """A row's bits depend on no other row, nor on where its prompt was cut."""

    @property
    def reads_unwritten(self) -> bool:
        """It multiplies what lies beyond a sequence's end in its last block by 0: no NaN may."""

    def plan(self, meta: StepMeta) -> AttendPages:
        """One plan for all layers of a step."""


class TorchAttention:
    """On any device, in any layout: decode rows in one batch, then one chunk after another."""

    name = "torch"
    is_invariant = False
    reads_unwritten = True

    def __init__(self, cache: KvPages):
        self._cache = cache

    def plan(self, meta: StepMeta) -> AttendPages:
        cache, decode = self._cache, None
        if meta.num_decode:
            decode = plan_decode(meta.decode_tables_BW, meta.decode_lens_B, cache.block_size)

        def attend(layer_idx: int, q_THP: Tensor) -> Tensor:
            gather = partial(cache.gather, layer_idx)
            parts: list[Tensor] = []
            if decode is not None:
                parts.append(attend_decode(q_THP[: meta.num_decode], decode, gather))
            parts += [
                attend_chunk(
                    q_THP[chunk.rows],
                    chunk.num_cached,
                    chunk.block_table_W,
                    cache.block_size,
                    gather,
                )
                for chunk in meta.chunks
            ]
            return parts[0] if len(parts) == 1 else torch.cat(parts)

        return attend


@dataclass(frozen=True)
class TileGroup:
    """Tiles of one width, at most GATHER_POSITIONS in all."""

    rows_N: Tensor  # int64: the decode row that each tile belongs to
    tables_NW: Tensor  # int64
    seen_N: Tensor | None  # int64: positions that count; None: all


@dataclass(frozen=True)
class DecodePlan:
    """Which tiles a step's decode rows attend to: one plan for all layers."""

    num_rows: int
    groups: tuple[TileGroup, ...]
    rows_N: Tensor  # int64: rows of all tiles, group after group
    one_each: bool  # no row has several tiles: nothing to merge


def plan_decode(tables_BW: Tensor, lens_B: Tensor, block_size: int) -> DecodePlan:
    """`lens_B`: cached positions of each row, its own included; at least 1."""
    device = tables_BW.device
    tables, lens = tables_BW.cpu().numpy(), lens_B.cpu().numpy()
    tile_blocks = max(1, TILE_POSITIONS // block_size)
    starts: dict[int, list[tuple[int, int, int]]] = {}  # width -> (row, first block, seen)
    for row, length in enumerate(lens.tolist()):
        for first in range(0, -(-length // block_size), tile_blocks):
            seen = min(length - first * block_size, tile_blocks * block_size)
            width = min(tile_blocks, 1 << (-(-seen // block_size) - 1).bit_length())
            starts.setdefault(width, []).append((row, first, seen))
    groups = []
    for width, items in sorted(starts.items()):
        most = max(1, GATHER_POSITIONS // (width * block_size))
        for at in range(0, len(items), most):
            rows, first, seen = np.array(items[at : at + most]).T
            wanted = first[:, None] + np.arange(width)
            # Beyond its own blocks a row sees its first block, masked: never another's.
            wanted[wanted * block_size >= lens[rows, None]] = 0
            groups.append(
                TileGroup(
                    torch.from_numpy(rows).to(device),
                    torch.from_numpy(tables[rows[:, None], wanted]).to(device),
                    None
                    if (seen == width * block_size).all()
                    else torch.from_numpy(seen).to(device),
                )
            )
    rows_N = torch.cat([group.rows_N for group in groups])
    return DecodePlan(len(lens), tuple(groups), rows_N, len(rows_N) == len(lens))


def attend_decode(q_BHP: Tensor, plan: DecodePlan, gather: Gather) -> Tensor:
    """One query row per sequence over its whole context: [B, H*P] in q's dtype."""
    parts = [_attend_tiles(q_BHP, group, gather) for group in plan.groups]
    if plan.one_each and len(parts) == 1:  # rows in order
        mean = parts[0].mean
    else:
        mean_N = torch.cat([part.mean for part in parts])
        if plan.one_each:
            mean = torch.empty_like(mean_N)
            mean[plan.rows_N] = mean_N
        else:
            lse_N = torch.cat([part.lse for part in parts])
            mean = merge_by_row(Part(mean_N, lse_N), plan.rows_N, plan.num_rows)
    return mean.reshape(plan.num_rows, -1).to(q_BHP.dtype)


def _attend_tiles(q_BHP: Tensor, group: TileGroup, gather: Gather) -> Part:
    k_NSGP, v_NSGP = (gathered.to(q_BHP.dtype) for gathered in gather(group.tables_NW))
    num_tiles, num_positions, num_groups, head_dim = k_NSGP.shape
    q_NGRP = q_BHP[group.rows_N].view(num_tiles, num_groups, -1, head_dim)
    bias_NS = None
    if group.seen_N is not None:
        hidden = torch.arange(num_positions, device=q_BHP.device) >= group.seen_N[:, None]
        bias_NS = torch.zeros_like(hidden, dtype=q_BHP.dtype).masked_fill_(hidden, float("-inf"))
    return attend_part(q_NGRP, k_NSGP, v_NSGP, bias_NS=bias_NS)


def attend_chunk(
    q_THP: Tensor, num_cached: int, table_W: Tensor, block_size: int, gather: Gather
) -> Tensor:
    """The newest T rows of a sequence over its `num_cached` positions, these rows included.

    Returns [T, H*P] in q's dtype.
    """
    num_rows, num_heads, head_dim = q_THP.shape
    start = num_cached - num_rows
    part: Part | None = None
    for first, stop in _spans(start, num_cached):
        blocks = slice(first // block_size, -(-stop // block_size))
        offset = first % block_size
        k_SGP, v_SGP = (
            gathered[offset : offset + stop - first].to(q_THP.dtype)
            for gathered in gather(table_W[blocks])
        )
        num_groups = k_SGP.shape[1]
        # Key heads as items and a group's query heads as its heads: nothing is copied.
        shape = (num_groups, num_heads // num_groups, -1, head_dim)
        q = q_THP.view(num_rows, *shape[:2], head_dim).permute(1, 2, 0, 3)
        k, v = (x.permute(1, 0, 2)[:, :, None].expand(-1, -1, shape[1], -1) for x in (k_SGP, v_SGP))
        here = attend_part(q, k, v, is_causal=first == start)
        part = here if part is None else merge(part, here)
    assert part is not None
    return part.mean.permute(2, 0, 1, 3).reshape(num_rows, -1).to(q_THP.dtype)


def _spans(start: int, stop: int) -> Iterator[tuple[int, int]]:
    """[first, stop) of the chunk itself, then of the prefix's tiles."""
    yield start, stop
    for first in range(0, start, PREFIX_POSITIONS):
        yield first, min(first + PREFIX_POSITIONS, start)
