"""What computes, and which results are equal bit for bit? Dtypes, kernels and their ids."""

from dataclasses import dataclass

import torch

INVARIANT_KERNELS = ("native", "cuda")
"""Kernels whose rows do not depend on the other rows of a batch, bit for bit."""

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
"""Dtypes that rows are computed in; the weight formats of these names are stored in them."""


def dtype_name(dtype: torch.dtype) -> str:
    """`f32` or `bf16`; torch's name for any other dtype."""
    known = {known: name for name, known in DTYPES.items()}
    return known.get(dtype, str(dtype).removeprefix("torch."))


def name_on_wire(name: str) -> str:
    """A format's name in ids and messages: torch's name for dtypes, its own for the others."""
    return str(DTYPES.get(name, name)).removeprefix("torch.")


@dataclass(frozen=True, kw_only=True)
class Numerics:
    """What computes with weights of a format; `why` it is not a faster kernel, if it is not."""

    weight_format: str
    kernel: str  # name and version, as in native-7
    isa: str
    why: str = ""

    @property
    def id(self) -> str:
        """Equal ids promise bit-equal results."""
        return f"{name_on_wire(self.weight_format)}/{self.kernel}/{self.isa}"


def is_invariant(numerics_id: str) -> bool:
    """Whether no row's bits depend on other rows."""
    kernel = numerics_id.partition("/")[2].partition("/")[0]
    return kernel.partition("-")[0] in INVARIANT_KERNELS
