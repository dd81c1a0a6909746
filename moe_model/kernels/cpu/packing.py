"""How do stored weights become what the native kernels read? From FP8 or float, by panels."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from moe_model.formats import PANEL
from moe_model.host_memory import empty_bytes
from moe_model.kernels.cpu import library
from moe_model.kernels.cpu.formats import PanelFormat, weight_format
from moe_model.kernels.cpu.fp8_format import group_scales, join_fp8
from moe_model.kernels.cpu.packed import PackedMatrix
from moe_model.quant import FP8_MAX, StoredExpert, StoredMatrix, scale_shape

_SOURCE_KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.float8_e4m3fn: 2}
"""What native/pack_panel.h reads; other floats are widened first."""


def pack_linear(parts: Sequence[StoredMatrix], format: str) -> PackedMatrix:
    """The outputs of all parts, one after another. Raises ValueError naming file and tensor."""
    weights = weight_format(format)
    if not parts:
        raise ValueError("a linear has at least one part")
    for part in parts:
        _check(part)
        if part.values.shape[1] != parts[0].values.shape[1]:
            raise ValueError(
                f"{part.where}: {part.values.shape[1]} inputs, others have another number"
            )
    outputs, inputs = sum(part.values.shape[0] for part in parts), parts[0].values.shape[1]
    data = empty_bytes(weights.size_bytes(outputs, inputs))
    if any(part.values.shape[0] % PANEL for part in parts[:-1]):
        parts = [_joined(parts)]
    panel_bytes, panel = weights.panel_bytes(inputs), 0
    for part in parts:
        _fill(data[panel * panel_bytes :], panel_bytes, part, weights)
        panel += part.values.shape[0] // PANEL
    return PackedMatrix(weights.name, outputs, inputs, data)


def pack_expert(expert: StoredExpert, format: str) -> tuple[PackedMatrix, PackedMatrix]:
    """Gate and up with alternating panels, and down. Raises ValueError naming file and tensor."""
    weights = weight_format(format)
    for matrix in (expert.w1, expert.w3, expert.w2):
        _check(matrix)
    outputs, inputs = expert.w1.values.shape
    for matrix, shape in ((expert.w3, (outputs, inputs)), (expert.w2, (inputs, outputs))):
        if tuple(matrix.values.shape) != shape:
            raise ValueError(f"{matrix.where}: {list(matrix.values.shape)}, expected {list(shape)}")
    both = 2 * -(-outputs // PANEL) * PANEL
    sizes = weights.size_bytes(both, inputs), weights.size_bytes(inputs, outputs)
    # An expert in one piece: more of it fills whole huge pages.
    gate_up, down = empty_bytes(sum(sizes)).split(sizes)
    panel_bytes = weights.panel_bytes(inputs)
    _fill(gate_up, 2 * panel_bytes, expert.w1, weights)
    _fill(gate_up[panel_bytes:], 2 * panel_bytes, expert.w3, weights)
    _fill(down, weights.panel_bytes(outputs), expert.w2, weights)
    return (
        PackedMatrix(weights.name, both, inputs, gate_up),
        PackedMatrix(weights.name, inputs, outputs, down),
    )


def _check(matrix: StoredMatrix) -> None:
    """Raises ValueError for numbers and scales that do not belong together: addresses come next."""
    values, scales, where = matrix.values, matrix.scales, matrix.where
    is_sound = values.dim() == 2 and values.is_floating_point() and values.numel() > 0
    if not is_sound or values.device.type != "cpu":
        raise ValueError(
            f"{where}: a weight is a float matrix on the CPU, "
            f"not {values.dtype} {list(values.shape)}"
        )
    if scales is None:
        if values.dtype == torch.float8_e4m3fn:
            raise ValueError(f"{where}: FP8 codes need the scales of their blocks")
        return
    if values.dtype != torch.float8_e4m3fn or min(matrix.block) < 1:
        raise ValueError(f"{where}: scales are of blocks of FP8 codes, not of {values.dtype}")
    rows, cols = values.shape
    expected = scale_shape(rows, cols, *matrix.block)
    if scales.dtype != torch.float32 or scales.shape != expected or scales.device.type != "cpu":
        raise ValueError(
            f"{where}: scales must be float32 {list(expected)} on the CPU, "
            f"not {scales.dtype} {list(scales.shape)}"
        )


def _fill(data: Tensor, stride: int, matrix: StoredMatrix, weights: PanelFormat) -> None:
    """Write the matrix's panels, `stride` bytes apart."""
    matrix = _readable(matrix, weights)
    outputs, inputs = matrix.values.shape
    library_here = library.load()
    if library_here is None or (weights.name == "fp8" and matrix.scales is None):
        for first, part in _parts(matrix):
            panels = _panels(part, weights)
            torch.as_strided(data[first * stride :], panels.shape, (stride, 1)).copy_(panels)
        return
    scales = matrix.scales.contiguous() if matrix.scales is not None else None
    sound = library_here.native.pack(
        weights.id,
        _SOURCE_KINDS[matrix.values.dtype],
        matrix.values.data_ptr(),
        0 if scales is None else scales.data_ptr(),
        *(max(1, size) for size in matrix.block),
        outputs,
        inputs,
        data.data_ptr(),
        stride,
        torch.get_num_threads(),
    )
    if not sound:
        limit = "finite and at most 2^96" if weights.name.startswith("int") else "finite"
        raise ValueError(f"{matrix.where}: values times their scales must be {limit}")


def _parts(matrix: StoredMatrix) -> Iterator[tuple[int, StoredMatrix]]:
    """(first panel, outputs) of one panel after another: float32 takes several times the memory."""
    if matrix.scales is not None:  # their blocks need not end with a panel
        return iter([(0, matrix)])
    parts = enumerate(matrix.values.split(PANEL))
    return ((panel, replace(matrix, values=values)) for panel, values in parts)


def _panels(matrix: StoredMatrix, weights: PanelFormat) -> Tensor:
    """The same in plain torch: uint8 [panels, panel bytes]."""
    outputs, inputs = matrix.values.shape
    missing = (0, weights.padded(inputs) - inputs, 0, -outputs % PANEL)
    if weights.name == "fp8" and matrix.scales is not None:
        scales = group_scales(matrix.scales, outputs, inputs, matrix.block)
        codes = F.pad(matrix.values.view(torch.uint8), missing).view(torch.float8_e4m3fn)
        padded_scales = F.pad(scales, (0, 0, 0, missing[3]))
        width = codes.shape[1]
        return join_fp8(codes.view(-1, PANEL, width), padded_scales.view(-1, PANEL, width // 128))
    # bfloat16 is rounded to once; what has a scale of its own takes the numbers as they are.
    weight = matrix.to(torch.bfloat16 if weights.name == "bf16" else torch.float32)
    padded = F.pad(weight, missing)
    try:
        return weights.pack(padded.view(-1, PANEL, padded.shape[1]))
    except ValueError as error:
        raise ValueError(f"{matrix.where}: {error}") from None


def _readable(matrix: StoredMatrix, weights: PanelFormat) -> StoredMatrix:
    """In a form the packers take. Raises ValueError where there is none."""
    values = matrix.values
    if values.dtype not in _SOURCE_KINDS:
        values = values.float()
    if weights.name == "fp8" and matrix.scales is not None:
        try:
            group_scales(matrix.scales[:1], 1, values.shape[1], matrix.block)
        except ValueError as error:
            raise ValueError(f"{matrix.where}: {error}") from None
        if not bool(torch.isfinite(matrix.scales * FP8_MAX).all()):
            raise ValueError(f"{matrix.where}: values times their scales must be finite")
    return replace(matrix, values=values.contiguous())


def _joined(parts: Sequence[StoredMatrix]) -> StoredMatrix:
    """Parts whose outputs do not end with a panel, as one matrix; FP8 ones stay codes."""
    where, inner = parts[0].where, {part.block[1] for part in parts}
    if all(part.scales is not None for part in parts) and len(inner) == 1:
        codes = torch.cat([part.values.view(torch.uint8) for part in parts])
        rows = [
            part.scales.repeat_interleave(part.block[0], 0)[: part.values.shape[0]]
            for part in parts
            if part.scales is not None
        ]
        return StoredMatrix(
            values=codes.view(torch.float8_e4m3fn),
            scales=torch.cat(rows),
            block=(1, inner.pop()),
            where=where,
        )
    values = torch.cat([part.to(torch.float32) for part in parts])
    return StoredMatrix(values=values, scales=None, block=(1, 1), where=where)
