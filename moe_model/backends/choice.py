"""Which backend is the fastest here, and why not a faster one? Nothing else decides this."""

import torch

from moe_model.backends.backend import Backend
from moe_model.kernels.cpu.backend import CpuBackend
from moe_model.kernels.cuda.backend import CudaBackend
from moe_model.kernels.torch.backend import TorchBackend

FASTER: dict[str, type[CpuBackend] | type[CudaBackend]] = {"cpu": CpuBackend, "cuda": CudaBackend}
"""Kind of device -> the backend that is faster there than torch, where it is available."""


def choose_backend(dtype: torch.dtype, device: torch.device | str = "cpu") -> Backend:
    """For rows of `dtype` on `device`.

    Raises:
        ValueError: the environment asks for an instruction set that is not here.
    """
    device = torch.device(device)
    faster = FASTER.get(device.type)
    why = faster.why_not(dtype) if faster else "there are kernels for CPUs and for CUDA devices"
    return TorchBackend(dtype, device, why) if why or not faster else faster(dtype, device)
