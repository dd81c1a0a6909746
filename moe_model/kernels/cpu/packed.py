"""How does a weight matrix lie in memory for the kernels, and how are rows multiplied with it?

Packed once, when it is loaded. A row's bits depend on no other row and no thread.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from moe_model.formats import PANEL
from moe_model.kernels.cpu import library
from moe_model.kernels.cpu.formats import PanelFormat, weight_format
from moe_model.maths.linear import LinearWeight

_ALIGNMENT = 64
UNPACKED_OUTPUTS = 4096
"""Outputs widened to float32 at once where a format has no kernel; a multiple of a panel."""


@dataclass(frozen=True)
class PackedMatrix:
    """A weight [num_outputs, num_inputs] in panels of 32 outputs.

    Attributes:
        format: a name in `FORMATS`.
        data: uint8, flat, 64-byte aligned; may be part of a mapped file.

    Raises:
        ValueError: naming the field.
    """

    format: str
    num_outputs: int
    num_inputs: int
    data: Tensor

    def __post_init__(self) -> None:
        weights = weight_format(self.format)
        if self.num_outputs < 1 or self.num_inputs < 1:
            raise ValueError(
                "a weight has at least one output and input, "
                f"not {self.num_outputs} and {self.num_inputs}"
            )
        data = self.data
        if data.dtype != torch.uint8 or data.dim() != 1 or data.device.type != "cpu":
            raise ValueError(f"data must be flat uint8 on the CPU, not {data.dtype} {data.device}")
        if not data.is_contiguous() or data.data_ptr() % _ALIGNMENT:
            raise ValueError(f"data must be contiguous and aligned to {_ALIGNMENT} bytes")
        size = weights.size_bytes(self.num_outputs, self.num_inputs)
        if data.numel() != size:
            raise ValueError(f"data must have {size} bytes, not {data.numel()}")

    @cached_property
    def weights(self) -> PanelFormat:
        return weight_format(self.format)

    @cached_property
    def address(self) -> int:
        return self.data.data_ptr()

    @property
    def has_kernel(self) -> bool:
        """Whether this CPU computes with the format natively."""
        here = library.load()
        return here is not None and self.weights.id in here.format_ids

    def linear(self, rows_TD: Tensor, out_dtype: torch.dtype) -> Tensor:
        """rows @ weight^T: float32 accumulation, rounded once.

        Args:
            rows_TD: in the format's `row_dtype` (bfloat16; float32 for f32), on the CPU.
            out_dtype: bfloat16 or float32.

        Raises:
            ValueError: shapes or dtypes that do not fit.
        """
        # The usual case asks tensors for as little as it can: see docs/cold-caches.md.
        weights = self.weights
        shape = rows_TD.shape
        if len(shape) != 2 or shape[1] != self.num_inputs:
            raise ValueError(f"rows must be [T, {self.num_inputs}], not {list(shape)}")
        if rows_TD.dtype is not weights.row_dtype or not rows_TD.is_cpu:
            raise ValueError(
                f"rows for {self.format} weights are {weights.row_dtype} on the CPU, "
                f"not {rows_TD.dtype} on {rows_TD.device}"
            )
        if out_dtype not in (torch.bfloat16, torch.float32):
            raise ValueError(f"out_dtype must be bfloat16 or float32, not {out_dtype}")
        if not self.has_kernel:
            return self._unpacked_linear(rows_TD).to(out_dtype)
        rows_TD = rows_TD.contiguous()
        num_rows = shape[0]
        out_TO = torch.empty((num_rows, self.num_outputs), dtype=out_dtype)
        if num_rows:
            library.need().native.linear(
                weights.id,
                rows_TD.data_ptr(),
                num_rows,
                self.num_inputs,
                self.num_outputs,
                self.address,
                out_TO.data_ptr(),
                int(out_dtype is torch.float32),
            )
        return out_TO

    def _unpacked_linear(self, rows_TD: Tensor) -> Tensor:
        """float32, for formats without a kernel here: slow, and never much wider than packed."""
        starts = range(0, self.num_outputs, UNPACKED_OUTPUTS)
        parts = (unpack(slice_outputs(self, start, UNPACKED_OUTPUTS)) for start in starts)
        return torch.cat([F.linear(rows_TD.float(), part) for part in parts], dim=1)


@runtime_checkable
class TakesExperts(Protocol):
    """Experts that can be filled from panels, in whatever layout they are held."""

    def put_panels(self, slot: int, gate_up: PackedMatrix, down: PackedMatrix) -> None:
        """`gate_up` with alternating panels (`separate`). Raises ValueError: not to be held."""


@runtime_checkable
class TakesLinears(Protocol):
    """Makes linears of panels, where they are held otherwise."""

    def from_panels(self, matrix: PackedMatrix, sizes: Sequence[int]) -> LinearWeight:
        """`sizes`: outputs of its parts. Raises ValueError: what cannot be held."""


def unpack(matrix: PackedMatrix) -> Tensor:
    """The numbers the kernel multiplies with: float32 [num_outputs, num_inputs]."""
    weights = matrix.weights
    panels = weights.unpack(matrix.data.view(-1, weights.panel_bytes(matrix.num_inputs)))
    whole = panels.reshape(-1, weights.padded(matrix.num_inputs))
    return whole[: matrix.num_outputs, : matrix.num_inputs].contiguous()


def slice_outputs(matrix: PackedMatrix, start: int, count: int) -> PackedMatrix:
    """`count` outputs from `start` on, or as many as there are; in the same memory.

    Raises:
        ValueError: `start` is not the beginning of a panel.
    """
    if start % PANEL or not 0 <= start < matrix.num_outputs:
        raise ValueError(f"start must be a multiple of {PANEL} below {matrix.num_outputs}")
    count = min(count, matrix.num_outputs - start)
    panel_bytes = matrix.weights.panel_bytes(matrix.num_inputs)
    first, panels = start // PANEL, -(-count // PANEL)
    data = matrix.data[first * panel_bytes : (first + panels) * panel_bytes]
    return PackedMatrix(matrix.format, count, matrix.num_inputs, data)


def separate(w13_HD: Tensor, expert_size: int) -> tuple[Tensor, Tensor]:
    """w1 and w3 from rows that alternate: 32 of w1, the same 32 of w3, and so on."""
    panels = w13_HD.view(-1, 2, PANEL, w13_HD.shape[1])
    w1, w3 = panels.transpose(0, 1).reshape(2, -1, w13_HD.shape[1])[:, :expert_size]
    return w1, w3
