"""How do rows go through a linear, and through the float32 routing matrix?"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import triton
import triton.language as tl
from torch import Tensor

from moe_model.kernels.cpu.packed import PackedMatrix
from moe_model.kernels.cuda.codes import (
    F32,
    FORMATS,
    FP8_ROWS,
    GROUP,
    PANEL,
    Coded,
    CodeFormat,
    can_join,
    encode,
    join,
)
from moe_model.kernels.cuda.dots import add_group
from moe_model.kernels.cuda.from_panels import code_linear
from moe_model.kernels.cuda.launch import launch, shared_memory_bytes
from moe_model.kernels.cuda.rows import Parts, add_parts
from moe_model.quant import StoredMatrix

_SEGMENT = 8
"""Groups of inputs summed by themselves, so that several programs can share a few rows' sums."""
_ROUTED_SEGMENT = 1
_FEW_ROWS, _FEW_TILES = 64, 1024
"""Of so few rows, and of so few tiles, every segment's sums are a program's own: a part."""
_COLUMNS = 512
_WIDE_ROWS, _WIDE_BYTES = 1024, 131_072
"""From so many rows on, wide tiles are faster; what a processor needs for them."""


@triton.jit(do_not_specialize=["num_rows"])
def _linear(
    rows, row_stride, codes, scales, out, out_stride, segment_stride,
    num_rows, num_inputs, num_outputs, num_groups, num_blocks,
    FORMAT: tl.constexpr, WIDTH: tl.constexpr, EVEN: tl.constexpr,
    B: tl.constexpr, ROWS: tl.constexpr, SEGMENT: tl.constexpr, APART: tl.constexpr
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
def _add_segments(
    parts, parts_row, parts_stride, out, num_outputs,
    PARTS: tl.constexpr, C: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    at_C = tl.program_id(1) * C + tl.arange(0, C)
    inside = at_C < num_outputs
    sum_C = add_parts(parts + row * parts_row + at_C, parts_stride, inside, PARTS)
    tl.store(out + row * num_outputs + at_C, sum_C.to(out.dtype.element_ty), mask=inside)


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
        parts = [encode(part, _format(part, weight_format), device) for part in stored]
        sizes = [part.values.shape[0] for part in stored]
        return cls.joined(parts, sizes, stored[0].values.shape[1])

    @classmethod
    def from_panels(
        cls, matrix: PackedMatrix, sizes: Sequence[int], device: torch.device
    ) -> "CudaLinear":
        """`sizes`: outputs of its parts."""
        return cls.joined(*code_linear(matrix, sizes, device), matrix.num_inputs)

    @classmethod
    def joined(cls, parts: Sequence[Coded], sizes: Sequence[int], num_inputs: int) -> "CudaLinear":
        """The parts below each other, in one where they fit."""
        if can_join(sizes, [part.format for part in parts]):
            parts, sizes = [join(parts)], [sum(sizes)]
        return cls(tuple(parts), tuple(sizes), num_inputs)

    @property
    def num_outputs(self) -> int:
        return sum(self.sizes)

    def linear(self, rows_TD: Tensor, out_dtype: torch.dtype) -> Tensor:
        shape = (rows_TD.shape[0], self.num_outputs)
        out_TO = torch.empty(shape, dtype=out_dtype, device=rows_TD.device)
        self.linear_into(rows_TD, out_TO)
        return out_TO

    def linear_into(self, rows_TD: Tensor, out_TO: Tensor) -> None:
        """Raises ValueError: rows that do not fit."""
        if self._num_parts(rows_TD) == 1:
            self._launch(rows_TD, out_TO[None])
            return
        found = self.parts_of(rows_TD)
        num_rows, num_outputs = out_TO.shape
        launch(
            _add_segments, (num_rows, -(-num_outputs // _COLUMNS)),
            found.values, found.row_stride, found.part_stride, out_TO, num_outputs,
            PARTS=found.count, C=_COLUMNS,
        )  # fmt: skip

    def parts_of(self, rows_TD: Tensor) -> Parts:
        """float32 sums: of each segment of the inputs if rows are few, else of all.

        Raises ValueError: rows that do not fit.
        """
        count = self._num_parts(rows_TD)
        shape = (count, rows_TD.shape[0], self.num_outputs)
        found_STO = torch.empty(shape, device=rows_TD.device)
        self._launch(rows_TD, found_STO)
        return Parts(found_STO, found_STO.stride(1), found_STO.stride(0), count)

    @property
    def _segment(self) -> int:
        return _ROUTED_SEGMENT if self.parts[0].format is F32 else _SEGMENT

    def _tiling(self, num_rows: int) -> tuple[int, int, int, int]:
        """Outputs and rows of a tile, warps and stages: no bit depends on them."""
        rows = next((rows for rows in (8, 16, 32) if num_rows <= rows), 64)
        if rows <= 16 or self.parts[0].format is F32:
            return 32, rows, 2, 3
        many = num_rows > _FEW_ROWS and self.parts[0].format.bits < 16
        if many and num_rows >= _WIDE_ROWS and self._wide:
            return 128, 128, 8, 3
        return 64, rows, 4 if many else 2, 3

    @cached_property
    def _wide(self) -> bool:
        """Whether tiles of 128 outputs and rows fit the weights and the processor's memory."""
        even = all(part.codes.shape[0] % 2 == 0 for part in self.parts)
        return even and shared_memory_bytes(self.parts[0].codes.device) >= _WIDE_BYTES

    def _num_parts(self, rows_TD: Tensor) -> int:
        """How many programs share a sum: no bit depends on it."""
        num_rows = rows_TD.shape[0]
        outputs, rows, *_ = self._tiling(num_rows)
        tiles = sum(part.codes.shape[0] for part in self.parts) * PANEL // outputs
        many = num_rows > _FEW_ROWS or tiles * -(-num_rows // rows) >= _FEW_TILES
        return 1 if many else -(-self.parts[0].codes.shape[1] // self._segment)

    def _launch(self, rows_TD: Tensor, out_STO: Tensor) -> None:
        num_rows, num_inputs = rows_TD.shape
        if num_inputs != self.num_inputs or rows_TD.dtype != torch.bfloat16:
            raise ValueError(
                f"rows must be bfloat16 with {self.num_inputs} columns, not {rows_TD.dtype} with "
                f"{num_inputs}"
            )
        if not num_rows:
            return
        rows_TD = rows_TD.contiguous()
        outputs, rows, warps, stages = self._tiling(num_rows)
        first = 0
        for part, size in zip(self.parts, self.sizes, strict=True):
            panels, groups, _, width = part.codes.shape
            tiles = (panels * PANEL // outputs, -(-num_rows // rows), out_STO.shape[0])
            launch(
                _linear, tiles,
                rows_TD, rows_TD.stride(0), part.codes, part.scales, out_STO[:, :, first:],
                out_STO.stride(1), out_STO.stride(0),
                num_rows, num_inputs, size, groups, part.scales.shape[-1],
                FORMAT=part.format.id, WIDTH=width, EVEN=num_inputs % GROUP == 0,
                B=outputs, ROWS=rows, SEGMENT=self._segment, APART=out_STO.shape[0] > 1,
                num_warps=warps, num_stages=stages,
            )  # fmt: skip
            first += size


def _format(stored: StoredMatrix, weight_format: str) -> CodeFormat:
    by_output = weight_format == "fp8" and stored.scales is None
    return FP8_ROWS if by_output else FORMATS[weight_format]


@dataclass(frozen=True)
class RoutingMatrix:
    """float32 [E, D], times rows that are bfloat16 numbers; sums in float32."""

    coded: CudaLinear

    @classmethod
    def of(cls, stored: StoredMatrix, device: torch.device) -> "RoutingMatrix":
        return cls(
            CudaLinear((encode(stored, F32, device),), (stored.values.shape[0],),
                       stored.values.shape[1])
        )  # fmt: skip

    def linear(self, rows_TD: Tensor, out_dtype: torch.dtype) -> Tensor:
        """Raises ValueError: rows that do not fit, another output dtype."""
        if out_dtype != torch.float32:
            raise ValueError(f"the routing matrix gives float32, not {out_dtype}")
        return self.coded.linear(rows_TD.bfloat16(), torch.float32)
