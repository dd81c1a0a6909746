"""How do weights lie on a GPU? As the words that a thread unpacks where it multiplies.

A matrix [O, I] is cut into panels of PANEL outputs and groups of GROUP inputs. A panel's groups lie
one after another, so that whoever computes a panel reads one contiguous stretch of memory. Missing
outputs and inputs are zeros. Codes come in words of 32 bits, of which every lane belongs to another
part of the group: lane j of word i is the code of input i + j * words. Scales lie apart, those of a
group side by side:

- bf16: plain numbers, no scales.
- f32, of the routing matrix: three bfloat16 numbers whose sum is the float32 number, those of a
  group beside each other; no scales.
- fp8: four E4M3 codes a word; a float32 scale for each block of 128 x 128, as M2's checkpoint
  stores it, or for 128 inputs of each output (`FP8_ROWS`).
- int4, int4_g128: eight codes plus 8; a bfloat16 scale for each 32 or 128 inputs of each output.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from moe_model.kernels.cpu.integer_formats import best_codes
from moe_model.kernels.cuda.packing import pack_int4
from moe_model.moved import MovedMatrix
from moe_model.quant import FP8_MAX, StoredMatrix, quantise

PANEL, GROUP = 64, 128
BLOCK = 128
"""Outputs that share a scale of fp8."""
AT_ONCE = 1 << 26
"""Weights that are coded together, if a matrix has more."""


@dataclass(frozen=True, kw_only=True)
class CodeFormat:
    """A weight format of moe_model/formats.py, on a GPU."""

    name: str
    id: int  # the kernels' number for it
    bits: int
    scale_group: int = GROUP  # inputs that share a scale
    scale_block: int = 1  # outputs that share a scale; 0: there are no scales

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.bits >= 16 else torch.int32

    @property
    def scale_dtype(self) -> torch.dtype:
        return torch.float32 if self.name == "fp8" else torch.bfloat16

    def codes_shape(self, outputs: int, inputs: int) -> tuple[int, int, int, int]:
        width = GROUP * self.bits // (8 * self.dtype.itemsize)
        return (-(-outputs // PANEL), -(-inputs // GROUP), PANEL, width)

    def scales_shape(self, outputs: int, inputs: int) -> tuple[int, int]:
        if not self.scale_block:
            return (0, 0)
        padded = -(-outputs // PANEL) * PANEL
        return (-(-inputs // GROUP) * GROUP // self.scale_group, -(-padded // self.scale_block))


FORMATS = {
    made.name: made
    for made in (
        CodeFormat(name="bf16", id=0, bits=16, scale_block=0),
        CodeFormat(name="fp8", id=1, bits=8, scale_block=BLOCK),
        CodeFormat(name="int4", id=2, bits=4, scale_group=32),
        CodeFormat(name="int4_g128", id=3, bits=4),
    )
}

F32 = CodeFormat(name="f32", id=4, bits=48, scale_block=0)
"""Of the routing matrix only."""
FP8_ROWS = CodeFormat(name="fp8", id=5, bits=8)
"""Of linears that a checkpoint does not store in FP8: a scale for each output, as on CPUs."""


@dataclass(frozen=True)
class Coded:
    """Codes [panels, groups, PANEL, width] and scales [groups of scales, blocks of outputs]."""

    codes: Tensor
    scales: Tensor
    format: CodeFormat


def encode(stored: StoredMatrix, format: CodeFormat, device: torch.device) -> Coded:
    """A stored matrix on `device`. Raises ValueError naming file and tensor."""
    if isinstance(stored, MovedMatrix):
        return _moved(stored, format, device)
    cut = _cut(stored)
    if len(cut) > 1:
        return join([encode(part, format, device) for part in cut])
    scales = None if stored.scales is None else stored.scales.to(device)
    stored = replace(stored, values=stored.values.to(device), scales=scales)
    outputs, inputs = stored.values.shape
    missing = (0, -inputs % GROUP, 0, -outputs % PANEL)
    no_scales = torch.empty(0, 0, dtype=format.scale_dtype, device=device)
    if format.name == "bf16":
        return Coded(_panels(F.pad(stored.to(torch.bfloat16), missing), format), no_scales, format)
    if format.name == "f32":
        parts = _three_parts(F.pad(stored.to(torch.float32), missing))
        return Coded(_panels(parts, format), no_scales, format)
    if format.name == "fp8":
        codes, scales = _fp8(stored, format)
        padded = F.pad(codes.view(torch.uint8), missing)
        return Coded(_panels(_words(padded, format), format), scales, format)
    if device.type == "cuda":
        return Coded(*pack_int4(stored, format.scale_group), format)
    weight = F.pad(stored.to(torch.float32), missing)
    try:
        codes, scales = best_codes(weight.view(weight.shape[0], -1, format.scale_group))
    except ValueError as error:
        raise ValueError(f"{stored.where}: {error}") from None
    return code_int4((codes + 8).to(torch.uint8).flatten(1), scales, format)


def code_int4(nibbles: Tensor, scales: Tensor, format: CodeFormat) -> Coded:
    """Of codes plus 8, uint8 [O, I], and bfloat16 scales [O, groups]; missing ones are zeros."""
    outputs, inputs = nibbles.shape
    missing = (0, -inputs % GROUP, 0, -outputs % PANEL)
    words = _words(F.pad(nibbles, missing, value=8), format)
    spread = _padded(scales.T, format.scales_shape(outputs, inputs))
    return Coded(_panels(words, format), spread, format)


def decode(coded: Coded, outputs: int, inputs: int) -> Tensor:
    """The float32 weights [O, I] that the kernels multiply with."""
    flat = coded.codes.transpose(1, 2).flatten(0, 1)  # [outputs, groups, width]
    bits = coded.format.bits
    if coded.format.name == "bf16":
        return flat.flatten(1).float()[:outputs, :inputs]
    if coded.format.name == "f32":
        three = flat.unflatten(2, (3, GROUP)).float()
        return three.flip(2).sum(2).flatten(1)[:outputs, :inputs]
    lanes = [(flat >> bits * lane & (1 << bits) - 1).to(torch.uint8) for lane in range(32 // bits)]
    codes = torch.cat(lanes, dim=-1).flatten(1)
    wide = codes.view(torch.float8_e4m3fn).float() if bits == 8 else codes.float() - 8
    scales = coded.scales.T.float().repeat_interleave(coded.format.scale_block, 0)
    spread = scales[: wide.shape[0]].repeat_interleave(coded.format.scale_group, 1)
    return (wide * spread)[:outputs, :inputs]


def can_join(sizes: Sequence[int], formats: Sequence[CodeFormat]) -> bool:
    """Whether coded parts of so many outputs, one after another, are a coded whole."""
    unit = max(PANEL, formats[0].scale_block)
    return len(set(formats)) == 1 and all(size % unit == 0 for size in sizes[:-1])


def join(parts: Sequence[Coded]) -> Coded:
    """Outputs of all parts, one after another: `can_join` said that they fit."""
    if len(parts) == 1:
        return parts[0]
    codes = torch.cat([part.codes for part in parts])
    return Coded(codes, torch.cat([part.scales for part in parts], dim=1), parts[0].format)


def _cut(stored: StoredMatrix) -> list[StoredMatrix]:
    """Parts of a large matrix, the LM head above all, that are coded one after another.

    Coding takes several times a part's memory on the device, which then has little left.
    """
    outputs, inputs = stored.values.shape
    unit = math.lcm(BLOCK, stored.block[0])
    rows = max(1, AT_ONCE // (inputs * unit)) * unit
    if outputs <= rows:
        return [stored]
    return [
        replace(
            stored,
            values=stored.values[first : first + rows],
            scales=None
            if stored.scales is None
            else stored.scales[first // stored.block[0] :][: -(-rows // stored.block[0])],
        )
        for first in range(0, outputs, rows)
    ]


def _moved(stored: MovedMatrix, format: CodeFormat, device: torch.device) -> Coded:
    """The master is coded once."""
    made, key = stored.master.made, (format, device)
    if key not in made:
        made[key] = encode(stored.master.stored, format, device)
    codes, scales = made[key].codes, made[key].scales
    codes = codes.roll((stored.rows // PANEL, stored.cols // GROUP), (0, 1))
    if format.scale_block:
        by = stored.cols // format.scale_group, stored.rows // format.scale_block
        scales = scales.roll(by, (0, 1))
    return Coded(codes, scales, format)


def _words(codes: Tensor, format: CodeFormat) -> Tensor:
    """uint8 [outputs, inputs] -> int32 [outputs, words of all groups]."""
    lanes = 32 // format.bits
    parts = codes.view(codes.shape[0], -1, lanes, GROUP // lanes)
    words = parts[:, :, 0].to(torch.int32)
    for lane in range(1, lanes):
        words |= parts[:, :, lane].to(torch.int32) << format.bits * lane
    return words.flatten(1)


def _three_parts(matrix: Tensor) -> Tensor:
    """float32 [outputs, inputs] -> bfloat16 [outputs, groups * 3 * GROUP]: the sum is exact."""
    high = matrix.bfloat16()
    middle = (matrix - high.float()).bfloat16()
    low = (matrix - high.float() - middle.float()).bfloat16()
    split = (part.view(part.shape[0], -1, GROUP) for part in (high, middle, low))
    return torch.stack(list(split), dim=2).flatten(1)


def _panels(matrix: Tensor, format: CodeFormat) -> Tensor:
    """[outputs, groups * width] -> [panels, groups, PANEL, width]."""
    width = format.codes_shape(1, 1)[-1]
    return matrix.view(-1, PANEL, matrix.shape[1] // width, width).transpose(1, 2).contiguous()


def _fp8(stored: StoredMatrix, format: CodeFormat) -> tuple[Tensor, Tensor]:
    """Codes [O, I], and float32 scales [groups, blocks]."""
    outputs, inputs = stored.values.shape
    units = format.scale_block, GROUP
    if stored.scales is None:
        codes, scales = quantise(stored.to(torch.float32), *units)
        return codes, _padded(scales.T, format.scales_shape(outputs, inputs))
    for size, block, unit in zip((outputs, inputs), stored.block, units, strict=True):
        if block % unit and size > block:
            raise ValueError(
                f"{stored.where}: fp8 on GPUs takes scale blocks of multiples of {BLOCK} x {GROUP},"
                f" not {stored.block[0]} x {stored.block[1]}"
            )
    if not bool(torch.isfinite(stored.scales * FP8_MAX).all()):
        raise ValueError(f"{stored.where}: values times their scales must be finite")
    device = stored.values.device
    blocks = torch.arange(-(-outputs // units[0]), device=device) * units[0] // stored.block[0]
    groups = torch.arange(-(-inputs // GROUP), device=device) * GROUP // stored.block[1]
    spread = stored.scales[blocks][:, groups].T
    return stored.values, _padded(spread, format.scales_shape(outputs, inputs))


def _padded(matrix: Tensor, shape: tuple[int, int]) -> Tensor:
    """With zeros."""
    rows, cols = matrix.shape
    return F.pad(matrix, (0, shape[1] - cols, 0, shape[0] - rows)).contiguous()
