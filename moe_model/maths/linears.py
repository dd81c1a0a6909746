"""How are linears made of what a checkpoint stores?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from moe_model.maths.linear import LinearWeight
from moe_model.quant import StoredMatrix


class Linears(Protocol):
    """How a layer's linears are made."""

    @property
    def dtype(self) -> torch.dtype:
        """The compute dtype: of the rows, the norms and the embedding."""

    def make(self, parts: Sequence[StoredMatrix]) -> LinearWeight:
        """The outputs of all parts, one after another."""

    def make_routing(self, stored: StoredMatrix) -> LinearWeight:
        """float32."""


@dataclass(frozen=True)
class PlainLinears:
    """Plain tensors: the reference's."""

    dtype: torch.dtype

    def make(self, parts: Sequence[StoredMatrix]) -> Tensor:
        return torch.cat([part.to(self.dtype) for part in parts])

    def make_routing(self, stored: StoredMatrix) -> Tensor:
        return stored.to(torch.float32)
