"""What computes, and which results are equal bit for bit? A compute dtype and its name, a kernel and its id."""

from dataclasses import dataclass

import torch

INVARIANT_KERNELS = ("native",)
"""With these no row's bits depend on other rows."""


DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
"""What rows are computed in; weights are held so in the formats of these names."""


def dtype_name(dtype: torch.dtype) -> str:
    """`f32`, `bf16`, of others torch's name."""
    known = {known: name for name, known in DTYPES.items()}
    return known.get(dtype, str(dtype).removeprefix("torch."))


def name_on_wire(name: str) -> str:
    """Of a format, as ids and messages have it: dtypes by torch's names, others by their own."""
    return str(DTYPES.get(name, name)).removeprefix("torch.")


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
        return f"{name_on_wire(self.weight_format)}/{self.kernel}/{self.isa}"


def is_invariant(numerics_id: str) -> bool:
    """Whether no row's bits depend on other rows."""
    kernel = numerics_id.partition("/")[2].partition("/")[0]
    return kernel.partition("-")[0] in INVARIANT_KERNELS
