"""What computes, and which results are equal bit for bit? A compute dtype and its name, a kernel and its id."""

from dataclasses import dataclass

import torch

INVARIANT_KERNELS = ("native",)
"""With these no row's bits depend on other rows."""


def torch_dtype(name: str) -> torch.dtype:
    """Of `float32` or `bfloat16`."""
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]


def dtype_name(dtype: torch.dtype) -> str:
    """`float32`, `bfloat16`."""
    return str(dtype).removeprefix("torch.")


@dataclass(frozen=True, kw_only=True)
class Numerics:
    """What computes with weights of a format. `why`: the reason when it is not the fastest kernel."""

    weight_format: str
    kernel: str  # its name and version, as in native-7
    isa: str
    why: str = ""

    @property
    def id(self) -> str:
        """Equal ids: bit-equal results."""
        return f"{self.weight_format}/{self.kernel}/{self.isa}"


def is_invariant(numerics_id: str) -> bool:
    """Whether no row's bits depend on other rows."""
    kernel = numerics_id.partition("/")[2].partition("/")[0]
    return kernel.partition("-")[0] in INVARIANT_KERNELS
