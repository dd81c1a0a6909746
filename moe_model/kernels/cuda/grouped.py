"""The experts' products: every tile is some outputs of one expert for some of the rows it serves.

1. `group_pairs` sorts (row, expert) pairs by expert and cuts each expert's pairs into tiles.
2. `gate_up`: w1 and w3 of the tile's expert, SiLU(gate) * up, rounded once.
3. `down`: w2, times the routing weight, rounded once; to the pair's own place.
4. `add_pairs`: each row's pairs in ascending expert id, in float32.

Pairs whose expert is -1, of rows that only fill a batch up, are left out: their rows are undefined.
"""

import triton
import triton.language as tl

from moe_model.kernels.cuda.dots import add_group


@triton.jit(do_not_specialize=["num_pairs"])
def group_pairs(
    slots, num_pairs, sorted_pairs, tile_slot, tile_first, tile_stop, num_tiles,
    ROWS: tl.constexpr, CHUNK: tl.constexpr, SLOTS: tl.constexpr
):  # fmt: skip
    """One program for each slot. Pairs with slot -1 are nobody's."""
    slot = tl.program_id(0)
    counts_S = tl.zeros([SLOTS], tl.int32)
    for at in range(0, num_pairs, CHUNK):
        pairs = at + tl.arange(0, CHUNK)
        found = tl.load(slots + pairs, mask=pairs < num_pairs, other=-1)
        counts_S += tl.histogram(found.to(tl.int32), SLOTS, mask=found >= 0)
    tiles_S = (counts_S + ROWS - 1) // ROWS
    at_S = tl.arange(0, SLOTS)
    if slot == 0:
        tl.store(num_tiles, tl.sum(tiles_S, 0))
    count = tl.sum(tl.where(at_S == slot, counts_S, 0), 0)
    if count > 0:
        before = tl.sum(tl.where(at_S < slot, counts_S, 0), 0)
        tile = tl.sum(tl.where(at_S < slot, tiles_S, 0), 0)
        placed = before
        for at in range(0, num_pairs, CHUNK):
            pairs = at + tl.arange(0, CHUNK)
            found = tl.load(slots + pairs, mask=pairs < num_pairs, other=-1)
            mine = (found == slot).to(tl.int32)
            place = placed + tl.cumsum(mine, 0) - 1
            tl.store(sorted_pairs + place, pairs, mask=mine > 0)
            placed += tl.sum(mine, 0)
        for i in range((count + ROWS - 1) // ROWS):
            tl.store(tile_slot + tile + i, slot)
            tl.store(tile_first + tile + i, before + i * ROWS)
            tl.store(tile_stop + tile + i, before + count)


@triton.jit
def _tile_rows(
    tile, sorted_pairs, tile_slot, tile_first, tile_stop, ROWS: tl.constexpr, GROUPED: tl.constexpr
):
    """A tile's slot, and its pairs: their places in the order, which there are, and their numbers.

    Ungrouped, every pair is a tile of its own, at the place of its number.
    """
    slot = tl.load(tile_slot + tile).to(tl.int64)
    if GROUPED:
        sorted_R = tl.load(tile_first + tile) + tl.arange(0, ROWS)
        valid_R = sorted_R < tl.load(tile_stop + tile)
        pairs_R = tl.load(sorted_pairs + sorted_R, mask=valid_R, other=0)
    else:
        sorted_R = tile + tl.arange(0, ROWS)
        valid_R = sorted_R == tile
        pairs_R = sorted_R
    return slot, sorted_R, valid_R, pairs_R


@triton.jit
def gate_up(
    rows, row_stride, row_of_pair, codes, scales, out,
    sorted_pairs, tile_slot, tile_first, tile_stop, num_tiles,
    num_inputs, num_outputs, num_groups, num_blocks,
    FORMAT: tl.constexpr, WIDTH: tl.constexpr, EVEN: tl.constexpr,
    B: tl.constexpr, ROWS: tl.constexpr, GROUPED: tl.constexpr, PAIRS_PER_ROW: tl.constexpr
):  # fmt: skip
    """out [pairs in sorted order, F]; codes [slots, 2, panels, groups, 64, WIDTH]."""
    tile = tl.program_id(1)
    if GROUPED:
        if tile >= tl.load(num_tiles):
            return
    elif tl.load(tile_slot + tile) < 0:
        return
    slot, sorted_R, valid_R, pairs_R = _tile_rows(
        tile, sorted_pairs, tile_slot, tile_first, tile_stop, ROWS, GROUPED
    )
    if PAIRS_PER_ROW:
        inputs_R = pairs_R // PAIRS_PER_ROW
    else:
        inputs_R = tl.load(row_of_pair + pairs_R, mask=valid_R, other=0)
    inputs_R = inputs_R.to(tl.int64)
    outs_B = tl.program_id(0) * B + tl.arange(0, B)
    panels = (num_outputs + 63) // 64
    matrix_codes = panels.to(tl.int64) * num_groups * (64 * WIDTH)
    gate_codes = codes + slot * 2 * matrix_codes
    lies_B = (outs_B // 64) * num_groups * (64 * WIDTH) + (outs_B % 64) * WIDTH
    gate_scales = scales + slot * 2 * num_blocks * num_groups * (128 // 32 if FORMAT == 2 else 1)
    up_scales = gate_scales + num_blocks * num_groups * (128 // 32 if FORMAT == 2 else 1)
    gate_BR = tl.zeros([B, ROWS], tl.float32)
    up_BR = tl.zeros([B, ROWS], tl.float32)
    for group in range(num_groups):
        here_B = gate_codes + lies_B + group * (64 * WIDTH)
        gate_BR = add_group(
            gate_BR, here_B, gate_scales, group, outs_B, num_blocks,
            rows, inputs_R, row_stride, num_inputs, valid_R, FORMAT, EVEN,
        )  # fmt: skip
        up_BR = add_group(
            up_BR, here_B + matrix_codes, up_scales, group, outs_B, num_blocks,
            rows, inputs_R, row_stride, num_inputs, valid_R, FORMAT, EVEN,
        )  # fmt: skip
    activated_BR = gate_BR / (1.0 + tl.exp(-gate_BR)) * up_BR
    where = out + sorted_R[None, :].to(tl.int64) * num_outputs + outs_B[:, None]
    inside = valid_R[None, :] & (outs_B < num_outputs)[:, None]
    tl.store(where, activated_BR.to(out.dtype.element_ty), mask=inside)


@triton.jit
def down(
    rows, codes, scales, weights, out,
    sorted_pairs, tile_slot, tile_first, tile_stop, num_tiles,
    num_inputs, num_outputs, num_groups, num_blocks,
    FORMAT: tl.constexpr, WIDTH: tl.constexpr, EVEN: tl.constexpr,
    B: tl.constexpr, ROWS: tl.constexpr, GROUPED: tl.constexpr
):  # fmt: skip
    """out [pairs, D], weighted; rows [pairs in sorted order, F]."""
    tile = tl.program_id(1)
    if GROUPED:
        if tile >= tl.load(num_tiles):
            return
    elif tl.load(tile_slot + tile) < 0:
        return
    slot, sorted_R, valid_R, pairs_R = _tile_rows(
        tile, sorted_pairs, tile_slot, tile_first, tile_stop, ROWS, GROUPED
    )
    pairs_R = pairs_R.to(tl.int64)
    outs_B = tl.program_id(0) * B + tl.arange(0, B)
    panels = (num_outputs + 63) // 64
    here_B = codes + slot * panels * num_groups * (64 * WIDTH)
    here_B += (outs_B // 64) * num_groups * (64 * WIDTH) + (outs_B % 64) * WIDTH
    scales += slot * num_blocks * num_groups * (128 // 32 if FORMAT == 2 else 1)
    sum_BR = tl.zeros([B, ROWS], tl.float32)
    for group in range(num_groups):
        sum_BR = add_group(
            sum_BR, here_B + group * (64 * WIDTH), scales, group, outs_B, num_blocks,
            rows, sorted_R.to(tl.int64), num_inputs, num_inputs, valid_R, FORMAT, EVEN,
        )  # fmt: skip
    weights_R = tl.load(weights + pairs_R, mask=valid_R, other=0.0)
    where = out + pairs_R[None, :] * num_outputs + outs_B[:, None]
    inside = valid_R[None, :] & (outs_B < num_outputs)[:, None]
    tl.store(where, (sum_BR * weights_R[None, :]).to(out.dtype.element_ty), mask=inside)


@triton.jit
def add_pairs(
    rows, first_of_row, out, num_columns, PAIRS: tl.constexpr, C: tl.constexpr
):  # fmt: skip
    """out [N, D] float32: pairs first_of_row[n] .. first_of_row[n + 1], or PAIRS for each row."""
    row = tl.program_id(0).to(tl.int64)
    at_C = tl.program_id(1) * C + tl.arange(0, C)
    inside = at_C < num_columns
    if PAIRS:
        first = row * PAIRS
        stop = first + PAIRS
    else:
        first = tl.load(first_of_row + row)
        stop = tl.load(first_of_row + row + 1)
    sum_C = tl.zeros([C], tl.float32)
    for pair in range(first, stop):
        sum_C += tl.load(rows + pair * num_columns + at_C, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * num_columns + at_C, sum_C, mask=inside)
