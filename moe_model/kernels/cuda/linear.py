"""How do rows go through a linear, and through the float32 routing matrix?"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from moe_model.kernels.cuda.codes import FORMATS, GROUP, PANEL, Coded, can_join, encode, join
from moe_model.kernels.cuda.dots import add_group
from moe_model.quant import StoredMatrix

_ROUTED_ROWS, _ROUTED_OUTPUTS, _ROUTED_INPUTS = 4, 8, 256
"""Of a tile of the routing matrix: the same for any number of rows, as are its sums."""


_SEGMENT = 8
"""Groups of inputs summed by themselves, so that several programs can share a few rows' sums."""
_FEW_ROWS = 32
_COLUMNS = 512


@triton.jit
def _linear(
    rows, row_stride, codes, scales, out, out_stride, segment_stride,
    num_rows, num_inputs, num_outputs, num_groups, num_blocks,
    FORMAT: tl.constexpr, WIDTH: tl.constexpr, EVEN: tl.constexpr,
    B: tl.constexpr, ROWS: tl.constexpr, SEGMENT: tl.constexpr, APART: tl.constexpr,
):  # fmt: skip
    """Sums over SEGMENT groups each, added in ascending order: here, or with APART later."""
    at_R = (tl.program_id(1) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    valid_R = at_R < num_rows
    outs_B = tl.program_id(0) * B + tl.arange(0, B)
    here_B = codes + (outs_B // 64).to(tl.int64) * num_groups * (64 * WIDTH) + (outs_B % 64) * WIDTH
    if APART:
        first = tl.program_id(2) * SEGMENT
        stop = tl.minimum(first + SEGMENT, num_groups)
        out += tl.program_id(2).to(tl.int64) * segment_stride
    else:
        first = 0
        stop = num_groups
    sum_BR = tl.zeros([B, ROWS], tl.float32)
    for start in range(first, stop, SEGMENT):
        part_BR = tl.zeros([B, ROWS], tl.float32)
        for group in range(start, tl.minimum(start + SEGMENT, stop)):
            part_BR = add_group(
                part_BR, here_B + group * (64 * WIDTH), scales, group, outs_B, num_blocks,
                rows, at_R, row_stride, num_inputs, valid_R, FORMAT, EVEN,
            )  # fmt: skip
        sum_BR += part_BR
    inside = valid_R[None, :] & (outs_B < num_outputs)[:, None]
    where = out + at_R[None, :] * out_stride + outs_B[:, None]
    tl.store(where, sum_BR.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _add_segments(parts, out, out_stride, num_rows, num_outputs, num_segments, C: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at_C = tl.program_id(1) * C + tl.arange(0, C)
    inside = at_C < num_outputs
    sum_C = tl.zeros([C], tl.float32)
    for segment in range(num_segments):
        where = parts + (segment * num_rows + row) * num_outputs + at_C
        sum_C += tl.load(where, mask=inside, other=0.0)
    tl.store(out + row * out_stride + at_C, sum_C.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _routing(
    rows, weight, out, num_rows, num_inputs, num_outputs,
    R: tl.constexpr, E: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    at_R = tl.program_id(1) * R + tl.arange(0, R)
    outs_E = tl.program_id(0) * E + tl.arange(0, E)
    sum_REK = tl.zeros([R, E, K], tl.float32)
    for first in range(0, num_inputs, K):
        at_K = first + tl.arange(0, K)
        row_RK = tl.load(
            rows + at_R[:, None].to(tl.int64) * num_inputs + at_K[None, :],
            mask=(at_R < num_rows)[:, None] & (at_K < num_inputs)[None, :], other=0.0,
        ).to(tl.float32)  # fmt: skip
        weight_EK = tl.load(
            weight + outs_E[:, None] * num_inputs + at_K[None, :],
            mask=(outs_E < num_outputs)[:, None] & (at_K < num_inputs)[None, :], other=0.0,
        )  # fmt: skip
        sum_REK += row_RK[:, None, :] * weight_EK[None, :, :]
    inside = (at_R < num_rows)[:, None] & (outs_E < num_outputs)[None, :]
    where = out + at_R[:, None].to(tl.int64) * num_outputs + outs_E[None, :]
    tl.store(where, tl.sum(sum_REK, 2), mask=inside)


@dataclass(frozen=True)
class CudaLinear:
    """A weight [O, I], or several below each other, in codes. See maths.linear.PackedWeight."""

    parts: tuple[Coded, ...]
    sizes: tuple[int, ...]  # outputs of each part
    num_inputs: int

    @classmethod
    def of(
        cls, stored: Sequence[StoredMatrix], weight_format: str, device: torch.device
    ) -> "CudaLinear":
        """Raises ValueError naming file and tensor."""
        format = FORMATS[weight_format]
        parts = [encode(part, format, device) for part in stored]
        sizes = [part.values.shape[0] for part in stored]
        if can_join(stored, format):
            parts, sizes = [join(parts)], [sum(sizes)]
        return cls(tuple(parts), tuple(sizes), stored[0].values.shape[1])

    def linear(self, rows_TD: Tensor, out_dtype: torch.dtype) -> Tensor:
        num_rows, num_inputs = rows_TD.shape
        if num_inputs != self.num_inputs or rows_TD.dtype != torch.bfloat16:
            raise ValueError(
                f"rows must be bfloat16 with {self.num_inputs} columns, not {rows_TD.dtype} with "
                f"{num_inputs}"
            )
        rows_TD = rows_TD.contiguous()
        out_TO = torch.empty((num_rows, sum(self.sizes)), dtype=out_dtype, device=rows_TD.device)
        first = 0
        for part, size in zip(self.parts, self.sizes, strict=True):
            self._part(rows_TD, part, size, out_TO[:, first : first + size])
            first += size
        return out_TO

    def _part(self, rows_TD: Tensor, part: Coded, size: int, out_TO: Tensor) -> None:
        num_rows, num_inputs = rows_TD.shape
        if not num_rows:
            return
        panels, groups, _, width = part.codes.shape
        segments = triton.cdiv(groups, _SEGMENT)
        apart = segments > 1 and num_rows <= _FEW_ROWS
        outputs, rows, warps, stages = tiling(num_rows)
        out, stride = out_TO, out_TO.stride(0)
        if apart:
            out = torch.empty((segments, num_rows, size), device=rows_TD.device)
            stride = size
        tiles = (panels * PANEL // outputs, triton.cdiv(num_rows, rows), segments if apart else 1)
        _linear[tiles](
            rows_TD, rows_TD.stride(0), part.codes, part.scales, out, stride, num_rows * size,
            num_rows, num_inputs, size, groups, part.scales.shape[-1],
            FORMAT=part.format.id, WIDTH=width, EVEN=num_inputs % GROUP == 0,
            B=outputs, ROWS=rows, SEGMENT=_SEGMENT, APART=apart,
            num_warps=warps, num_stages=stages,
        )  # fmt: skip
        if apart:
            _add_segments[(num_rows, triton.cdiv(size, _COLUMNS))](
                out, out_TO, out_TO.stride(0), num_rows, size, segments, C=_COLUMNS,
            )  # fmt: skip


def tiling(num_rows: int) -> tuple[int, int, int, int]:
    """Outputs and rows of a tile, warps and stages: no bit depends on them."""
    if num_rows <= 16:
        return 32, 8 if num_rows <= 8 else 16, 2, 3
    return 64, 32 if num_rows <= 32 else 64, 2, 3


@dataclass(frozen=True)
class RoutingMatrix:
    """float32 [E, D]; products and sums in float32."""

    weight_ED: Tensor

    def linear(self, rows_TD: Tensor, out_dtype: torch.dtype) -> Tensor:
        """Rows of any float dtype. Raises ValueError: another width, another output dtype."""
        num_rows, num_inputs = rows_TD.shape
        num_outputs = self.weight_ED.shape[0]
        if num_inputs != self.weight_ED.shape[1] or out_dtype != torch.float32:
            raise ValueError(f"rows must have {self.weight_ED.shape[1]} columns, not {num_inputs}")
        out_TE = torch.empty((num_rows, num_outputs), device=rows_TD.device)
        if num_rows:
            tiles = (triton.cdiv(num_outputs, _ROUTED_OUTPUTS), triton.cdiv(num_rows, _ROUTED_ROWS))
            _routing[tiles](
                rows_TD.contiguous(), self.weight_ED, out_TE, num_rows, num_inputs, num_outputs,
                R=_ROUTED_ROWS, E=_ROUTED_OUTPUTS, K=_ROUTED_INPUTS, num_warps=4,
            )  # fmt: skip
        return out_TE
