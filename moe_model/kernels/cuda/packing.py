"""How are weights coded as int4 on a GPU? As in kernels/cpu/integer_formats.py, bit for bit.

A program codes one group of 128 inputs of a panel: it reads the weights as they are stored, weighs
all reaches at once, and writes words and scales where codes.py says. Sums run over the inputs one
after another and no product is fused with a sum, so that codes and scales are those of the CPU.

M2's expert has 14.2 million weights. To read them as E4M3 and write int4 takes an H200 some 5 us at
4.8 TB/s; to weigh eight reaches, of some ten instructions each, takes 40 us at 29 T lanes a second.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from moe_model.kernels.cpu.integer_formats import LEAST_MAGNITUDE, MOST_MAGNITUDE
from moe_model.kernels.cuda.launch import launch_unfused
from moe_model.quant import StoredMatrix

_LEAST = tl.constexpr(LEAST_MAGNITUDE)
_MOST = tl.constexpr(MOST_MAGNITUDE)
_READ = (torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn)


@triton.jit
def _weights(
    values, scales, outs, ins, num_outputs, num_inputs, scale_cols,
    CODES: tl.constexpr, SCALED: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_COLS: tl.constexpr,
):  # fmt: skip
    """float32, of outputs and inputs that are broadcast; missing ones are zeros."""
    inside = (outs < num_outputs) & (ins < num_inputs)
    found = tl.load(values + outs.to(tl.int64) * num_inputs + ins, mask=inside, other=0)
    if not CODES:
        return found.to(tl.float32)
    # E4M3 bits under a float16 exponent, times 2^8: exact, also below the normal numbers.
    bits = ((found.to(tl.uint16) & 0x80) << 8) | ((found.to(tl.uint16) & 0x7F) << 7)
    weight = bits.to(tl.float16, bitcast=True).to(tl.float32) * 256.0
    if SCALED:
        at = outs // BLOCK_ROWS * scale_cols + ins // BLOCK_COLS
        weight *= tl.load(scales + at, mask=inside, other=0.0)
    return weight


@triton.jit
def _code(scaled):
    """Rounded to even, -8 to 7."""
    rounded = (scaled + 12582912.0) - 12582912.0  # 1.5 * 2^23
    return tl.minimum(tl.maximum(rounded, -8.0), 7.0)


@triton.jit
def pack_groups(
    values, value_scales, words, scales, refused,
    num_outputs, num_inputs, num_groups, num_held, scale_cols,
    CODES: tl.constexpr, SCALED: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_COLS: tl.constexpr,
    SHARED: tl.constexpr
):  # fmt: skip
    """Program (panel, group). `SHARED`: inputs that share a scale."""
    B: tl.constexpr = 64
    outs_B = tl.program_id(0) * B + tl.arange(0, B)
    group = tl.program_id(1)
    # 6.8 to 8.9 in steps of 0.3, each the float32 next to it.
    reach_R = tl.div_rn((68 + 3 * tl.arange(0, 8)).to(tl.float32), tl.full([8], 10.0, tl.float32))
    word_BW = tl.zeros([B, 16], tl.int32)
    for part in tl.static_range(128 // SHARED):
        first = group * 128 + part * SHARED
        weight_BK = _weights(
            values, value_scales, outs_B[:, None], first + tl.arange(0, SHARED)[None, :],
            num_outputs, num_inputs, scale_cols, CODES, SCALED, BLOCK_ROWS, BLOCK_COLS,
        )  # fmt: skip
        is_sound = tl.min(tl.min((tl.abs(weight_BK) <= _MOST).to(tl.int32), 1), 0)
        if is_sound == 0:
            tl.store(refused, 1)
        top_B, bottom_B = tl.max(weight_BK, 1), tl.min(weight_BK, 1)
        is_up_B = top_B >= -bottom_B
        largest_B = tl.where(is_up_B, top_B, -bottom_B)
        kept_B = largest_B >= _LEAST
        one_B = tl.full([B], 1.0, tl.float32)
        inverse_B = tl.where(kept_B, tl.div_rn(one_B, tl.where(kept_B, largest_B, 1.0)), 0.0)
        factor_BR = tl.where(is_up_B[:, None], -reach_R[None, :], reach_R[None, :])
        cross_BR = tl.zeros([B, 8], tl.float32)
        square_BR = tl.zeros([B, 8], tl.float32)
        for i in range(SHARED):
            unit_B = inverse_B * _weights(
                values, value_scales, outs_B, tl.full([B], first + i, tl.int32),
                num_outputs, num_inputs, scale_cols, CODES, SCALED, BLOCK_ROWS, BLOCK_COLS,
            )  # fmt: skip
            code_BR = _code(unit_B[:, None] * factor_BR)
            cross_BR += unit_B[:, None] * code_BR
            square_BR += code_BR * code_BR
        square_BR = tl.where(kept_B[:, None], square_BR, 1.0)
        fit_BR = tl.where(kept_B[:, None], tl.div_rn(cross_BR, square_BR), 0.0)
        gain_BR = fit_BR * cross_BR
        gain_BR = tl.where(gain_BR > -1.0, gain_BR, -1.0)  # no NaN
        best_B = tl.argmax(gain_BR, 1, tie_break_left=True)
        is_best_BR = tl.arange(0, 8)[None, :] == best_B[:, None]
        factor_B = tl.sum(tl.where(is_best_BR, factor_BR, 0.0), 1)
        scale_B = tl.sum(tl.where(is_best_BR, fit_BR, 0.0), 1) * largest_B
        bits_B = scale_B.to(tl.int32, bitcast=True)
        bits_B = (bits_B + 0x7FFF + ((bits_B >> 16) & 1)) >> 16  # to bfloat16, to even
        at = (group * (128 // SHARED) + part).to(tl.int64) * num_held
        tl.store(scales + at + outs_B, bits_B.to(tl.int16))
        for lane in tl.static_range(SHARED // 16):
            weight_BW = _weights(
                values, value_scales, outs_B[:, None],
                first + 16 * lane + tl.arange(0, 16)[None, :],
                num_outputs, num_inputs, scale_cols, CODES, SCALED, BLOCK_ROWS, BLOCK_COLS,
            )  # fmt: skip
            code_BW = _code(weight_BW * inverse_B[:, None] * factor_B[:, None])
            word_BW |= (code_BW.to(tl.int32) + 8) << (4 * (part * (SHARED // 16) + lane))
    words += (tl.program_id(0).to(tl.int64) * num_groups + group) * (B * 16)
    tl.store(words + tl.arange(0, B)[:, None] * 16 + tl.arange(0, 16)[None, :], word_BW)


def pack_int4(stored: StoredMatrix, group: int) -> tuple[Tensor, Tensor]:
    """Words and scales of `int4` (`group` 32) or `int4_g128` (128), as codes.py lays them out.

    Args:
        stored: [O, I], on the device.

    Returns:
        int32 [panels of 64, groups of 128, 64, 16] and bfloat16 [padded I / group, padded O].

    Raises:
        ValueError: weights that are not finite or beyond 2^96, naming file and tensor.
    """
    values = stored.values if stored.values.dtype in _READ else stored.values.float()
    is_coded = values.dtype == torch.float8_e4m3fn
    values = values.contiguous().view(torch.uint8) if is_coded else values.contiguous()
    given = values if stored.scales is None else stored.scales.contiguous()
    (outputs, inputs), device = values.shape, values.device
    panels, groups = -(-outputs // 64), -(-inputs // 128)
    words = torch.empty((panels, groups, 64, 16), dtype=torch.int32, device=device)
    scales = torch.empty((groups * 128 // group, panels * 64), dtype=torch.int16, device=device)
    refused = torch.zeros(1, dtype=torch.int32, device=device)
    block_rows, block_cols = stored.block
    launch_unfused(
        pack_groups, (panels, groups),
        values, given, words, scales, refused,
        outputs, inputs, groups, panels * 64, given.shape[1],
        CODES=is_coded, SCALED=stored.scales is not None,
        BLOCK_ROWS=block_rows, BLOCK_COLS=block_cols,
        SHARED=group, num_warps=8,
    )  # fmt: skip
    if bool(refused):
        raise ValueError(f"{stored.where}: integer formats take finite weights up to 2^96")
    return words, scales.view(torch.bfloat16)
