"""Which backend is the fastest here, and why not a faster one? The only place where this is asked."""

import torch

from moe_model.backends.backend import Backend
from moe_model.kernels.cpu.backend import CpuBackend
from moe_model.kernels.torch.backend import TorchBackend

FASTER = {"cpu": CpuBackend}
"""Kind of device -> what is faster there than torch, where it can be had."""


def choose_backend(dtype: torch.dtype, device: torch.device | str = "cpu") -> Backend:
    """For rows of `dtype` on `device`. Raises ValueError: the environment asks for what is not here."""
    device = torch.device(device)
    faster = FASTER.get(device.type)
    why = faster.why_not(dtype) if faster else "the native kernels are for CPUs"
    return TorchBackend(dtype, device, why) if why or not faster else faster(dtype, device)
