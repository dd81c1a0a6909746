"""How does a tile of coded weights become a product? Codes are widened to bfloat16 without loss.

Weights are the tall side of each product and rows the wide one, so that one row costs as many
matrix instructions as sixteen. A group of 128 inputs is one product, multiplied by its scale in
float32 and then added: the same order for every number of rows.
"""

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(bool(triton.knobs.runtime.interpret))
"""Triton's interpreter, in which tests run, has no arithmetic of bfloat16: float32 is as exact."""

BF16 = tl.constexpr(0)
FP8 = tl.constexpr(1)
INT4 = tl.constexpr(2)  # groups of 32
INT4_G128 = tl.constexpr(3)
F32 = tl.constexpr(4)  # three bfloat16 parts
FP8_ROWS = tl.constexpr(5)  # a scale for each output


@triton.jit
def operand(values):
    if INTERPRETED:
        return values.to(tl.float32)
    return values


@triton.jit
def widen_fp8(words, LANE: tl.constexpr):
    """E4M3 bits under a bfloat16 exponent, times 2^120: exact, also below the normal numbers."""
    if INTERPRETED:
        code = (words >> (8 * LANE)).to(tl.uint16) & 0xFF
        bits = ((code & 0x80) << 8) | ((code & 0x7F) << 4)
        return bits.to(tl.bfloat16, bitcast=True).to(tl.float32) * 1.329227995784916e36
    # Two words at once: their bytes to bits 8-15 and 24-31, then sign and the rest to their places.
    selector: tl.constexpr = "0x%x" % (0x0000 | LANE << 4 | (4 + LANE) << 12)
    return tl.inline_asm_elementwise(
        "{ .reg .b32 t, s, z;"
        " prmt.b32 t, $1, $2, " + selector + ";"
        " shr.u32 s, t, 4;"
        " and.b32 s, s, 0x07F007F0;"
        " lop3.b32 t, t, 0x80008000, s, 0xEA;"
        " mov.b32 s, 0x7B807B80;"
        " mov.b32 z, 0x80008000;"
        " fma.rn.bf16x2 $0, t, s, z; }",
        "=r,r,r", [words], dtype=tl.bfloat16, is_pure=True, pack=2,
    )  # fmt: skip


@triton.jit
def widen_int4(words, LANE: tl.constexpr):
    """Codes 0 to 15 as -8 to 7: 128 + code is a bfloat16 number whose last bits are the code's."""
    if INTERPRETED:
        return ((words >> (4 * LANE)) & 0xF).to(tl.float32) - 8.0
    selector: tl.constexpr = "0x%x" % (LANE // 2 | (4 + LANE // 2) << 8)
    shift: tl.constexpr = " shr.u32 t, t, 4;" if LANE % 2 else ""
    return tl.inline_asm_elementwise(
        "{ .reg .b32 t, s, z;"
        " prmt.b32 t, $1, $2, " + selector + ";" + shift + ""
        " mov.b32 s, 0x43004300;"
        " lop3.b32 t, t, 0x000F000F, s, 0xEA;"
        " mov.b32 s, 0x3F803F80;"
        " mov.b32 z, 0xC308C308;"
        " fma.rn.bf16x2 $0, t, s, z; }",
        "=r,r,r", [words], dtype=tl.bfloat16, is_pure=True, pack=2,
    )  # fmt: skip


@triton.jit
def rows_at(rows, inputs, first, NUM: tl.constexpr, stride, size, valid_R, EVEN: tl.constexpr):
    """Columns first .. first + NUM of rows, transposed: [NUM, R]."""
    at_K = first + tl.arange(0, NUM)
    where = rows + inputs[None, :] * stride + at_K[:, None]
    if EVEN:
        return operand(tl.load(where, mask=valid_R[None, :], other=0.0))
    return operand(tl.load(where, mask=valid_R[None, :] & (at_K < size)[:, None], other=0.0))


@triton.jit
def add_group(
    sum_BR, codes, scales, group, outs_B, num_blocks, rows, inputs, stride, size, valid_R,
    FORMAT: tl.constexpr, EVEN: tl.constexpr,
):  # fmt: skip
    """sum + weights [B, 128] of `group` @ rows [128, R]; `codes`: where each output's group is."""
    first = group * 128
    if FORMAT == BF16:
        weight = operand(tl.load(codes[:, None] + tl.arange(0, 128)[None, :]))
        row_KR = rows_at(rows, inputs, first, 128, stride, size, valid_R, EVEN)
        sum_BR = tl.dot(weight, row_KR, sum_BR)
    elif FORMAT == F32:
        row_KR = rows_at(rows, inputs, first, 128, stride, size, valid_R, EVEN)
        part_BR = tl.zeros_like(sum_BR)
        for part in tl.static_range(3):  # the smallest first
            where = codes[:, None] + (2 - part) * 128 + tl.arange(0, 128)[None, :]
            part_BR = tl.dot(operand(tl.load(where)), row_KR, part_BR)
        sum_BR += part_BR
    elif FORMAT == FP8 or FORMAT == FP8_ROWS:  # noqa: SIM109 (Triton has no `in`)
        words = tl.load(codes[:, None] + tl.arange(0, 32)[None, :])
        part_BR = tl.zeros_like(sum_BR)
        for lane in tl.static_range(4):
            row_KR = rows_at(rows, inputs, first + 32 * lane, 32, stride, size, valid_R, EVEN)
            part_BR = tl.dot(widen_fp8(words, lane), row_KR, part_BR)
        blocks_B = outs_B if FORMAT == FP8_ROWS else outs_B // 128
        scale_B = tl.load(scales + group * num_blocks + blocks_B)
        sum_BR += part_BR * scale_B[:, None]
    else:
        words = tl.load(codes[:, None] + tl.arange(0, 16)[None, :])
        part_BR = tl.zeros_like(sum_BR)
        for lane in tl.static_range(8):
            row_KR = rows_at(rows, inputs, first + 16 * lane, 16, stride, size, valid_R, EVEN)
            part_BR = tl.dot(widen_int4(words, lane), row_KR, part_BR)
            if FORMAT == INT4 and lane % 2 == 1:
                at = (group * 4 + lane // 2) * num_blocks
                scale_B = tl.load(scales + at + outs_B).to(tl.float32)
                sum_BR += part_BR * scale_B[:, None]
                part_BR = tl.zeros_like(sum_BR)
        if FORMAT == INT4_G128:
            scale_B = tl.load(scales + group * num_blocks + outs_B).to(tl.float32)
            sum_BR += part_BR * scale_B[:, None]
    return sum_BR
