"""How does a packed folder's matrix get to a GPU? Its codes and scales stay; their places change.

The panels of kernels/cpu/formats.py are copied as they are and laid out anew on the device.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from moe_model.formats import PANEL
from moe_model.kernels.cpu.fp8_format import split_fp8
from moe_model.kernels.cpu.integer_formats import split_int4
from moe_model.kernels.cpu.packed import PackedMatrix, slice_outputs
from moe_model.kernels.cuda.codes import (
    AT_ONCE,
    BLOCK,
    F32,
    FORMATS,
    FP8_ROWS,
    GROUP,
    Coded,
    CodeFormat,
    code_int4,
    encode,
)
from moe_model.quant import StoredMatrix


def code_expert(
    gate_up: PackedMatrix, down: PackedMatrix, expert_size: int, device: torch.device
) -> tuple[Coded, Coded, Coded]:
    """w1, w3 and w2, of `gate_up` with alternating panels.

    Raises ValueError: fp8 with other scales than an FP8 checkpoint's.
    """
    both, inputs = _panels(gate_up, device), gate_up.num_inputs
    (one,) = _code(both[0::2], [expert_size], inputs, gate_up.format)
    (three,) = _code(both[1::2], [expert_size], inputs, gate_up.format)
    (two,) = _code(_panels(down, device), [down.num_outputs], down.num_inputs, down.format)
    if FP8_ROWS in (one.format, three.format, two.format):
        raise ValueError(
            f"fp8 with different scales within {BLOCK} outputs, for which a GPU's experts have "
            "one: use the checkpoint that it was made from"
        )
    return one, three, two


def code_linear(
    matrix: PackedMatrix, sizes: Sequence[int], device: torch.device
) -> tuple[list[Coded], list[int]]:
    """What it is made of, one below the other, and their outputs; a large one comes in slices.

    `sizes`: outputs of its parts.
    """
    inputs, held = matrix.num_inputs, matrix.format
    if held == "fp8" and len(sizes) > 1:  # a part's scales begin with it
        return _code(_panels(matrix, device), sizes, inputs, held), list(sizes)
    rows = max(1, AT_ONCE // (inputs * BLOCK)) * BLOCK
    slices = [slice_outputs(matrix, at, rows) for at in range(0, matrix.num_outputs, rows)]
    found = [_code(_panels(part, device), [part.num_outputs], inputs, held)[0] for part in slices]
    return found, [part.num_outputs for part in slices]


def _panels(matrix: PackedMatrix, device: torch.device) -> Tensor:
    """uint8 [panels, panel bytes], on the device."""
    return matrix.data.view(-1, matrix.weights.panel_bytes(matrix.num_inputs)).to(device)


def _code(data_PB: Tensor, sizes: Sequence[int], inputs: int, held: str) -> list[Coded]:
    """One for each size; only of fp8 there may be several."""
    outputs = sum(sizes)
    if held == "fp8":
        codes_POD, scales_POG = split_fp8(data_PB)
        codes = codes_POD.flatten(0, 1)[:outputs, :inputs].split(list(sizes))
        scales = scales_POG.flatten(0, 1)[:outputs].split(list(sizes))
        return [_fp8(*part) for part in zip(codes, scales, strict=True)]
    format = F32 if held == "f32" else FORMATS[held]
    if format.bits == 4:
        nibbles_POD, scales_POG = split_int4(data_PB, format.scale_group)
        nibbles_OD, scales_OG = (x.flatten(0, 1)[:outputs] for x in (nibbles_POD, scales_POG))
        return [code_int4(nibbles_OD, scales_OG, format)]
    values = _plain(data_PB, format)[:outputs, :inputs]
    stored = StoredMatrix(values=values, scales=None, block=(1, 1), where="panels")
    return [encode(stored, format, values.device)]


def _fp8(values: Tensor, scales_OG: Tensor) -> Coded:
    """With a scale for BLOCK outputs where they have the same, as an FP8 checkpoint's."""
    blocks = scales_OG[::BLOCK].contiguous()
    spread = blocks.repeat_interleave(BLOCK, 0)[: scales_OG.shape[0]]
    is_blocks = torch.equal(spread, scales_OG)
    stored = StoredMatrix(
        values=values,
        scales=blocks if is_blocks else scales_OG,
        block=(BLOCK if is_blocks else 1, GROUP),
        where="panels",
    )
    return encode(stored, FORMATS["fp8"] if is_blocks else FP8_ROWS, values.device)


def _plain(data_PB: Tensor, format: CodeFormat) -> Tensor:
    """bfloat16 or float32 [outputs, inputs], padded."""
    if format is F32:
        columns = data_PB.view(torch.float32).view(data_PB.shape[0], -1, PANEL)
        return columns.transpose(1, 2).flatten(0, 1)
    pairs = data_PB.view(torch.bfloat16).view(data_PB.shape[0], -1, PANEL, 2)
    return pairs.transpose(1, 2).flatten(2).flatten(0, 1)
