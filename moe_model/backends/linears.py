"""In which layout does a machine serve linears fastest? Made from what a checkpoint stores."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from moe_model.backends.choice import choose_kernel
from moe_model.backends.packing import pack_linear
from moe_model.maths.linear import LinearWeight, pack
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


@dataclass(frozen=True)
class HeldLinears:
    """What computes fastest on this device; `weight_format`: see moe_model/weights/formats.py."""

    dtype: torch.dtype
    weight_format: str
    device: torch.device

    def make(self, parts: Sequence[StoredMatrix]) -> LinearWeight:
        native = choose_kernel(self.weight_format, self.dtype, self.device).is_native
        if native or self.weight_format not in ("float32", "bfloat16"):
            return pack_linear(parts, self.weight_format)
        return pack(PlainLinears(self.dtype).make(parts).to(self.device))

    def make_routing(self, stored: StoredMatrix) -> LinearWeight:
        # Next to native linears, so that routing is as independent of other rows as they are.
        if choose_kernel("bfloat16", self.dtype, self.device).is_native:
            return pack_linear([stored], "float32")
        return stored.to(torch.float32).to(self.device)
