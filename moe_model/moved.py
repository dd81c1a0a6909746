"""How are many matrices made of one? By moving whole blocks round, rows and columns.

Every weight format codes blocks by themselves, so the moved matrix, coded, is the coded matrix with
its blocks moved: a backend may code the master once (`MovedMatrix.made`).
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from moe_model.quant import StoredMatrix

BLOCK = 128
"""Rows and columns of a block: that of the scales, and a multiple of every format's units."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Master:
    """A matrix that others are made of; scales of BLOCK x BLOCK."""

    stored: StoredMatrix
    made: dict[Any, Any] = field(default_factory=dict)
    """What backends made of it, by keys of theirs."""

    def move(self, index: int, where: str) -> StoredMatrix:
        """Number `index` of the `num_moves` different ones."""
        values, scales = self.stored.values, self.stored.scales
        assert scales is not None
        rows, cols = (BLOCK * part for part in divmod(index, _steps(values.shape[1])))
        return MovedMatrix(
            values=_rolled(values.view(torch.uint8), rows, cols).view(values.dtype),
            scales=_rolled(scales, rows // BLOCK, cols // BLOCK),
            block=self.stored.block,
            where=where,
            master=self,
            rows=rows,
            cols=cols,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class MovedMatrix(StoredMatrix):
    """The master, `rows` further down and `cols` further right, and round the edges."""

    master: Master
    rows: int  # multiples of BLOCK
    cols: int


def num_moves(num_outputs: int, num_inputs: int) -> int:
    """How many different matrices one master gives: a side of partial blocks cannot be moved."""
    return _steps(num_outputs) * _steps(num_inputs)


def _steps(size: int) -> int:
    return 1 if size % BLOCK else size // BLOCK


def _rolled(matrix: Tensor, rows: int, cols: int) -> Tensor:
    return matrix.roll((rows, cols), (0, 1)) if rows or cols else matrix
