"""Attention over pages: a span of SPAN positions at a time, whoever attends to it.

Every span gives a maximum, a sum and a weighted sum of its own; they are added in ascending order.
A row decoded alone and the same row within a chunk therefore get the same bits: the first has one
program for each span and adds them later, the second goes through them one after another. Weights
are summed by a product with ones: the order in which a reduction adds depends on the tile.
"""

import triton
import triton.language as tl

from moe_model.kernels.cuda.dots import INTERPRETED, operand

SPAN = tl.constexpr(256)
TILE = tl.constexpr(64)
"""Positions of one product."""
LOG2_E = 1.4426950408889634
"""Scores are multiplied by it, so that their exponentials are powers of two."""


@triton.jit
def _exp2(x):
    """2^x, zero where that is below the normal numbers: one instruction instead of four."""
    if INTERPRETED:
        return tl.exp2(x)
    return tl.inline_asm_elementwise(
        "ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
    )


@triton.jit
def _attend_tile(
    max_M, sum_M, mean_MP, q_MP, keys, values, key_scales, value_scales, table, first, seen_M,
    seen_by_all, stop, group, scale, page_stride, num_groups,
    BLOCK: tl.constexpr, CODED: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """Positions first .. first + TILE, of which row m sees those below seen_M, after others.

    Maxima are of scores times `scale`, which has LOG2_E in it.

    CODED: int8 codes of all groups, then a float32 scale for each, which `key_scales` and
    `value_scales` are: the same memory in float32.
    """
    at_P = tl.arange(0, P)
    at_S = first + tl.arange(0, TILE)
    inside_S = at_S < stop
    page_S = tl.load(table + at_S // BLOCK, mask=inside_S, other=0).to(tl.int64)
    row_size = num_groups * (P + 4 if CODED else P)
    row_S = page_S * page_stride + (at_S % BLOCK) * row_size
    here_S = row_S + group * P
    k_PS = tl.load(keys + here_S[None, :] + at_P[:, None], mask=inside_S[None, :], other=0)
    v_SP = tl.load(values + here_S[:, None] + at_P[None, :], mask=inside_S[:, None], other=0)
    if CODED:  # codes are bfloat16 numbers, too
        k_PS = k_PS.to(tl.float32).to(tl.bfloat16)
        v_SP = v_SP.to(tl.float32).to(tl.bfloat16)
    score_MS = tl.dot(q_MP, operand(k_PS))
    if CODED:
        scale_S = row_S // 4 + (num_groups * P // 4 + group)
        score_MS *= tl.load(key_scales + scale_S, mask=inside_S, other=0.0)[None, :]
    if first + TILE > seen_by_all:
        score_MS = tl.where(at_S[None, :] < seen_M[:, None], score_MS, float("-inf"))
    top_M = tl.maximum(max_M, tl.max(score_MS, 1) * scale)
    base_M = tl.where(top_M == float("-inf"), 0.0, top_M)
    weight_MS = _exp2(score_MS * scale - base_M[:, None])
    shrink_M = _exp2(max_M - base_M)
    ones_SK = operand(tl.full([TILE, 16], 1.0, tl.bfloat16))
    weights_M = tl.max(tl.dot(operand(weight_MS.to(tl.bfloat16)), ones_SK), 1)  # 16 equal sums
    if CODED:
        weight_MS *= tl.load(value_scales + scale_S, mask=inside_S, other=0.0)[None, :]
    weighted_MP = tl.dot(operand(weight_MS.to(tl.bfloat16)), operand(v_SP))
    return top_M, sum_M * shrink_M + weights_M, mean_MP * shrink_M[:, None] + weighted_MP


@triton.jit
def _add_span(max_M, sum_M, mean_MP, other_max_M, other_sum_M, other_MP):
    top_M = tl.maximum(max_M, other_max_M)
    base_M = tl.where(top_M == float("-inf"), 0.0, top_M)
    own_M = _exp2(max_M - base_M)
    theirs_M = _exp2(other_max_M - base_M)
    return (
        top_M,
        sum_M * own_M + other_sum_M * theirs_M,
        mean_MP * own_M[:, None] + other_MP * theirs_M[:, None],
    )


@triton.jit
def _queries(q, first_row, num_rows, group, num_heads, HEADS: tl.constexpr, M: tl.constexpr,
             P: tl.constexpr):  # fmt: skip
    """Query m is head m % HEADS of row m // HEADS: [M, P], places and which there are."""
    at_M = tl.arange(0, M)
    row_M = first_row + at_M // HEADS
    valid_M = (at_M // HEADS < num_rows) & (at_M < (M // HEADS) * HEADS)
    head_M = group * HEADS + at_M % HEADS
    place_M = (row_M.to(tl.int64) * num_heads + head_M) * P
    where = q + place_M[:, None] + tl.arange(0, P)[None, :]
    return operand(tl.load(where, mask=valid_M[:, None], other=0.0)), place_M, valid_M


@triton.jit
def decode_spans(
    q, keys, values, key_scales, value_scales, tables, table_of_row, lens, row_of_item, first_item,
    maxima, sums, means, scale, page_stride, num_groups,
    BLOCK: tl.constexpr, CODED: tl.constexpr, HEADS: tl.constexpr, M: tl.constexpr, P: tl.constexpr
):  # fmt: skip
    """One program for each item, a span of a row, and group; maxima and sums [items, H].

    Items without a row, -1, or beyond its length, are nothing.
    """
    item = tl.program_id(0).to(tl.int64)
    group = tl.program_id(1)
    row = tl.load(row_of_item + item)
    if row < 0:
        return
    first = ((item - tl.load(first_item + row)) * SPAN).to(tl.int32)
    length = tl.load(lens + row).to(tl.int32)
    if first >= length:
        return
    num_heads = num_groups * HEADS
    q_MP, _, valid_M = _queries(q, row, 1, group, num_heads, HEADS, M, P)
    seen_M = tl.zeros([M], tl.int32) + length
    table = tables + tl.load(table_of_row + row)
    max_M = tl.full([M], float("-inf"), tl.float32)
    sum_M = tl.zeros([M], tl.float32)
    mean_MP = tl.zeros([M, P], tl.float32)
    for tile in range(tl.cdiv(tl.minimum(length - first, SPAN), TILE)):
        max_M, sum_M, mean_MP = _attend_tile(
            max_M, sum_M, mean_MP, q_MP, keys, values, key_scales, value_scales, table,
            first + tile * TILE, seen_M, length, length, group, scale, page_stride, num_groups,
            BLOCK, CODED, P,
        )  # fmt: skip
    at_M = item * num_heads + group * HEADS + tl.arange(0, M)
    tl.store(maxima + at_M, max_M, mask=valid_M)
    tl.store(sums + at_M, sum_M, mask=valid_M)
    where = means + at_M[:, None] * P + tl.arange(0, P)[None, :]
    tl.store(where, mean_MP, mask=valid_M[:, None])


@triton.jit
def tile_spans(
    q, keys, values, key_scales, value_scales, tables, items, num_items, lens,
    maxima, sums, means, scale, page_stride, num_groups,
    BLOCK: tl.constexpr, CODED: tl.constexpr, HEADS: tl.constexpr, M: tl.constexpr, P: tl.constexpr
):  # fmt: skip
    """One program for each item, a span of a tile of a sequence's rows, and group.

    items [4, num_items]: a tile's first row, -1: no item; how many it has, M // HEADS at most;
    where its table begins; the span. Row r sees lens[r] positions. maxima and sums [items,
    M // HEADS, H]: a row that does not see the span leaves what adds nothing.
    """
    item = tl.program_id(0).to(tl.int64)
    group = tl.program_id(1)
    first_row = tl.load(items + item)
    if first_row < 0:
        return
    num_rows = tl.load(items + num_items + item).to(tl.int32)
    table = tables + tl.load(items + 2 * num_items + item)
    first = (tl.load(items + 3 * num_items + item) * SPAN).to(tl.int32)
    num_heads = num_groups * HEADS
    q_MP, _, valid_M = _queries(q, first_row, num_rows, group, num_heads, HEADS, M, P)
    row_M = tl.arange(0, M) // HEADS
    seen_M = tl.load(lens + first_row + row_M, mask=valid_M, other=0).to(tl.int32)
    seen_by_all = tl.load(lens + first_row).to(tl.int32)
    stop = tl.load(lens + first_row + num_rows - 1).to(tl.int32)
    max_M = tl.full([M], float("-inf"), tl.float32)
    sum_M = tl.zeros([M], tl.float32)
    mean_MP = tl.zeros([M, P], tl.float32)
    for tile in range(tl.cdiv(tl.minimum(stop - first, SPAN), TILE)):
        max_M, sum_M, mean_MP = _attend_tile(
            max_M, sum_M, mean_MP, q_MP, keys, values, key_scales, value_scales, table,
            first + tile * TILE, seen_M, seen_by_all, stop, group, scale, page_stride, num_groups,
            BLOCK, CODED, P,
        )  # fmt: skip
    place_M = (item * (M // HEADS) + row_M) * num_heads + group * HEADS + tl.arange(0, M) % HEADS
    tl.store(maxima + place_M, max_M, mask=valid_M)
    tl.store(sums + place_M, sum_M, mask=valid_M)
    where = means + place_M[:, None] * P + tl.arange(0, P)[None, :]
    tl.store(where, mean_MP, mask=valid_M[:, None])


@triton.jit
def _load_span(
    maxima, sums, means, first, span, num_spans, num_heads, head, P: tl.constexpr,
    APART: tl.constexpr
):  # fmt: skip
    """One head's; beyond the last span, one that adds nothing."""
    at = (first + tl.minimum(span, num_spans - 1) * APART) * num_heads + head
    max_ = tl.where(span < num_spans, tl.load(maxima + at), float("-inf"))
    return max_, tl.load(sums + at), tl.load(means + at * P + tl.arange(0, P))


@triton.jit
def _fold(max_, sum_, mean_P, other_max, other_sum, other_P):
    """`_add_span` for one head."""
    top = tl.maximum(max_, other_max)
    base = tl.where(top == float("-inf"), 0.0, top)
    own = _exp2(max_ - base)
    theirs = _exp2(other_max - base)
    return top, sum_ * own + other_sum * theirs, mean_P * own + other_P * theirs


@triton.jit
def add_spans(
    maxima, sums, means, lens, first_item, out, num_heads, P: tl.constexpr, APART: tl.constexpr
):  # fmt: skip
    """One program for each row and head: as a chunk's rows add theirs. No length: zeros.

    A row's spans lie APART from each other. Four are read at once, as their sums wait for each
    other.
    """
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    num_spans = tl.cdiv(tl.load(lens + row).to(tl.int32), SPAN)
    first = tl.load(first_item + row).to(tl.int64)
    max_ = float("-inf")
    sum_ = 0.0
    mean_P = tl.zeros([P], tl.float32)
    for span in range(0, num_spans, 4):
        m0, s0, a0_P = _load_span(
            maxima, sums, means, first, span + 0, num_spans, num_heads, head, P, APART
        )
        m1, s1, a1_P = _load_span(
            maxima, sums, means, first, span + 1, num_spans, num_heads, head, P, APART
        )
        m2, s2, a2_P = _load_span(
            maxima, sums, means, first, span + 2, num_spans, num_heads, head, P, APART
        )
        m3, s3, a3_P = _load_span(
            maxima, sums, means, first, span + 3, num_spans, num_heads, head, P, APART
        )
        max_, sum_, mean_P = _fold(max_, sum_, mean_P, m0, s0, a0_P)
        max_, sum_, mean_P = _fold(max_, sum_, mean_P, m1, s1, a1_P)
        max_, sum_, mean_P = _fold(max_, sum_, mean_P, m2, s2, a2_P)
        max_, sum_, mean_P = _fold(max_, sum_, mean_P, m3, s3, a3_P)
    if num_spans == 0:
        sum_ = 1.0
    where = out + (row * num_heads + head) * P + tl.arange(0, P)
    tl.store(where, (mean_P / sum_).to(out.dtype.element_ty))


@triton.jit(do_not_specialize=["first_position", "num_rows"])
def attend_chunk(
    q, keys, values, key_scales, value_scales, table, out, first_position, num_rows, scale,
    page_stride, num_groups,
    BLOCK: tl.constexpr, CODED: tl.constexpr, HEADS: tl.constexpr, M: tl.constexpr, P: tl.constexpr
):  # fmt: skip
    """One program for each group and M // HEADS rows; row r sees up to first_position + r."""
    first_row = tl.program_id(0) * (M // HEADS)
    group = tl.program_id(1)
    rows_left = num_rows - first_row
    q_MP, place_M, valid_M = _queries(
        q, first_row, rows_left, group, num_groups * HEADS, HEADS, M, P
    )
    seen_M = first_position + first_row + tl.arange(0, M) // HEADS + 1
    seen_by_all = first_position + first_row + 1
    stop = first_position + tl.minimum(first_row + M // HEADS, num_rows)
    max_M = tl.full([M], float("-inf"), tl.float32)
    sum_M = tl.zeros([M], tl.float32)
    mean_MP = tl.zeros([M, P], tl.float32)
    span_max_M, span_sum_M, span_MP = max_M, sum_M, mean_MP
    for tile in range(tl.cdiv(stop, TILE)):  # one loop: what it loads is fetched ahead
        first = tile * TILE
        if first % SPAN == 0:
            max_M, sum_M, mean_MP = _add_span(
                max_M, sum_M, mean_MP, span_max_M, span_sum_M, span_MP
            )
            span_max_M = tl.full([M], float("-inf"), tl.float32)
            span_sum_M = tl.zeros([M], tl.float32)
            span_MP = tl.zeros([M, P], tl.float32)
        span_max_M, span_sum_M, span_MP = _attend_tile(
            span_max_M, span_sum_M, span_MP, q_MP, keys, values, key_scales, value_scales, table,
            first, seen_M, seen_by_all, stop, group, scale, page_stride, num_groups,
            BLOCK, CODED, P,
        )  # fmt: skip
    max_M, sum_M, mean_MP = _add_span(max_M, sum_M, mean_MP, span_max_M, span_sum_M, span_MP)
    found_MP = mean_MP / sum_M[:, None]
    where = out + place_M[:, None] + tl.arange(0, P)[None, :]
    tl.store(where, found_MP.to(out.dtype.element_ty), mask=valid_M[:, None])
