"""Which kernel computes with weights of a format here, and why not a native one?"""

from dataclasses import dataclass

import torch

from moe_model.kernels.cpu import library
from moe_model.kernels.cpu import rows as native_rows
from moe_model.kernels.cpu.formats import FORMATS as KERNEL_FORMATS
from moe_model.maths.linear import can_pack
from moe_model.maths.row_maths import TORCH, RowMaths

KERNEL_NAMES = {"float32": "f32", "bfloat16": "bf16", "fp8": "fp8", "int8": "int8", "int4": "int4"}
"""Our names of weight formats -> those of moe_model/kernels/cpu."""


@dataclass(frozen=True, kw_only=True)
class KernelChoice:
    """What computes. `why`: the reason when it is not the native kernel."""

    weight_format: str
    kernel: str  # "native", "onednn" or "torch", with its version
    isa: str
    why: str = ""

    @property
    def is_native(self) -> bool:
        return is_native(self.numerics_id)

    @property
    def numerics_id(self) -> str:
        """Equal ids: bit-equal results."""
        return f"{self.weight_format}/{self.kernel}/{self.isa}"


def is_native(numerics_id: str) -> bool:
    """Whether the native kernels computed: then no row's bits depend on other rows."""
    return "/native-" in numerics_id


def choose_kernel(
    weight_format: str, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> KernelChoice:
    """For bfloat16 rows the native kernels, for others torch. Raises what `library.load` does."""
    device = torch.device(device)
    torch_version = torch.__version__.split("+")[0]
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        isa, why = f"sm_{major}{minor}", "the native kernels are for CPUs"
        return KernelChoice(
            weight_format=weight_format, kernel=f"torch-{torch_version}", isa=isa, why=why
        )
    why = _why_not(weight_format, dtype)
    native = library.load()
    if not why and native is not None:
        kernel = f"native-{native.version}"
        return KernelChoice(weight_format=weight_format, kernel=kernel, isa=native.isa)
    name = "onednn" if weight_format == "bfloat16" and can_pack(dtype, device) else "torch"
    isa = torch.backends.cpu.get_cpu_capability().lower().replace(" ", "-")
    kernel = f"{name}-{torch_version}"
    return KernelChoice(weight_format=weight_format, kernel=kernel, isa=isa, why=why)


def _why_not(weight_format: str, dtype: torch.dtype) -> str:
    """Why the native kernels do not compute this format; empty when they do."""
    if dtype != torch.bfloat16:
        return "the native kernels take bfloat16 rows"
    native = library.load()
    if native is None:
        return library.why_not()
    kernel_format = KERNEL_FORMATS.get(KERNEL_NAMES[weight_format])
    if kernel_format is None or kernel_format.id not in native.format_ids:
        return f"no native kernel for {weight_format} on {native.isa}"
    return ""


def choose_row_maths(dtype: torch.dtype, device: torch.device) -> RowMaths:
    """The fastest here. Raises what `library.load` does."""
    native = dtype == torch.bfloat16 and device.type == "cpu" and library.load() is not None
    return native_rows if native else TORCH
