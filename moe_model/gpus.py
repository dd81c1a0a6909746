"""Which GPUs are here, how full are they, and do the kernels take them?

The only file that asks torch.cuda about devices. torch is imported by the functions that need it,
so that planning needs none; tests hand in `Gpus` of their own.
"""

import ctypes
import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

LEAST_CAPABILITY = (8, 0)
"""Of the GPUs that the kernels take."""
MEASURED = {(9, 0): "H200"}
"""Compute capabilities of the cards on which the kernels were measured, and which cards."""
DEVICE_HELP = (
    "where to compute: auto, cpu, cuda (the first GPU) or cuda:N; auto is a GPU that takes all that"
    " is asked, or else the CPU, and the log says why"
)
GPU_MEMORY_HELP = "share of a GPU's memory that the service may use"
_DEVICE = re.compile(r"auto|cpu|cuda(?::(?:0|[1-9][0-9]{0,2}))?")


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One device, as torch numbers them."""

    index: int
    name: str
    total_bytes: int
    capability: tuple[int, int]
    uuid: str = ""
    lost: str = ""
    """Why it does not answer; empty where nobody has found that."""

    @property
    def device(self) -> str:
        return f"cuda:{self.index}"

    @property
    def architecture(self) -> str:
        return "sm_{}{}".format(*self.capability)

    @property
    def problem(self) -> str:
        """Why the kernels do not take it; empty if they do."""
        if self.lost:
            return self.lost
        if self.capability >= LEAST_CAPABILITY:
            return ""
        return (
            "the CUDA kernels need compute capability {}.{}".format(*LEAST_CAPABILITY)
            + f", {self.device} ({self.name}) has "
            + "{}.{}".format(*self.capability)
        )

    def __str__(self) -> str:
        unmeasured = "" if self.capability in MEASURED else ", never measured"
        gib = self.total_bytes / 2**30
        return f"{self.device} ({self.name}, {gib:.1f} GiB, {self.architecture}{unmeasured})"


@dataclass(frozen=True, kw_only=True)
class Gpus:
    """All that torch finds, and whether the kernels' compiler is there."""

    found: tuple[Gpu, ...] = ()
    problem: str = ""
    """Why there are none; empty when there are."""
    has_triton: bool = True

    def at(self, device: str) -> Gpu:
        """The one that `cuda` (the first) or `cuda:N` means. Raises ValueError saying what is."""
        index = int(device.partition(":")[2] or 0)
        if index < len(self.found):
            return self.found[index]
        here = ", ".join(map(str, self.found)) or self.problem
        raise ValueError(f"--device {device}: {'there are ' if self.found else ''}{here}")

    def why_no_kernels(self, compute_dtype: str, gpu: Gpu | None = None) -> str:
        """Why the CUDA kernels do not compute there (the first one); empty if they do."""
        if compute_dtype != "bf16":
            return "the CUDA kernels take bfloat16 rows"
        if not self.has_triton:
            return "the CUDA kernels need Triton: pip install 'expertmesh[cuda]'"
        if not self.found:
            return self.problem
        return (gpu or self.found[0]).problem


def check_flags(device: str, gpu_memory: float) -> None:
    """Raises ValueError naming --device or --gpu-memory if its value is not one of theirs."""
    if not _DEVICE.fullmatch(device):
        raise ValueError(f"--device {device}: allowed are auto, cpu, cuda and cuda:N")
    if not 0 < gpu_memory <= 1:
        raise ValueError(f"--gpu-memory {gpu_memory:g}: a share is more than 0 and at most 1")


def read_gpus() -> Gpus:
    """What torch finds. Takes no memory of a device."""
    import torch

    has_triton = find_spec("triton") is not None
    if torch.version.cuda is None:
        problem = f"this torch, {torch.__version__}, is not built for CUDA"
        return Gpus(problem=problem, has_triton=has_triton)
    try:
        torch.cuda.init()  # says why there is none: no driver, or one too old for torch's CUDA
        found = [torch.cuda.get_device_properties(at) for at in range(torch.cuda.device_count())]
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0].partition(". ")[0]
        return Gpus(problem=f"torch finds no GPU: {first}", has_triton=has_triton)
    return Gpus(
        found=tuple(
            Gpu(
                index=index,
                name=one.name,
                total_bytes=one.total_memory,
                capability=(one.major, one.minor),
                uuid=str(getattr(one, "uuid", "")),
            )
            for index, one in enumerate(found)
        ),
        problem="" if found else "torch finds no GPU",
        has_triton=has_triton,
    )


def free_bytes(device: str) -> int:
    """Free memory of a GPU, whoever uses the rest. Takes some of it for this process's context.

    Raises ValueError if the device does not answer.
    """
    return _free_and_total(device)[0]


def probe(gpus: Gpus, free: Callable[[str], int] = free_bytes) -> tuple[Gpus, dict[str, int]]:
    """The same, with what is found about those that do not answer, and free bytes of the others."""
    found, left = [], {}
    for gpu in gpus.found:
        try:
            if not gpu.problem:
                left[gpu.device] = free(gpu.device)
        except ValueError as error:
            gpu = replace(gpu, lost=str(error))
        found.append(gpu)
    return replace(gpus, found=tuple(found)), left


def used_bytes(device: str) -> int:
    """Memory of a GPU that is in use, whoever uses it. Raises what `free_bytes` does."""
    free, total = _free_and_total(device)
    return total - free


def torch_bytes(device: str) -> tuple[int, int]:
    """Memory of a GPU in this process's tensors, and what torch's allocator keeps beside it."""
    import torch

    held = torch.cuda.memory_allocated(device)
    return held, torch.cuda.memory_reserved(device) - held


def release_unused(device: "torch.device | str") -> None:
    """Give back what torch's allocator keeps for later; nothing to do for a CPU.

    Once all is loaded: what that took lies in other pieces than steps ask for, and graphs, whose
    memory is their own, cannot have it.
    """
    import torch

    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()


def _free_and_total(device: str) -> tuple[int, int]:
    import torch

    try:
        return torch.cuda.mem_get_info(torch.device(device))
    except RuntimeError as error:
        raise ValueError(f"{device} does not answer: {str(error).splitlines()[0]}") from None


def architecture(device: "torch.device | str") -> str:
    """Of a GPU: sm_90."""
    import torch

    return "sm_{}{}".format(*torch.cuda.get_device_capability(torch.device(device)))


def use(device: "torch.device | str") -> None:
    """Make a GPU this thread's own: kernels start on the thread's device, not on their tensors'.

    For every thread that launches some; nothing to do for a CPU.
    """
    import torch

    if torch.device(device).type == "cuda":
        torch.cuda.set_device(torch.device(device))


def wait_for_stream(device: "torch.device | str") -> None:
    """Until a GPU has done what this thread has sent it; nothing to do for a CPU."""
    import torch

    if torch.device(device).type == "cuda":
        torch.cuda.current_stream(torch.device(device)).synchronize()


def wait_for_device(device: "torch.device | str") -> None:
    """Until a GPU has done what this process has sent it; nothing to do for a CPU.

    Raises what torch does if the device has failed.
    """
    import torch

    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(torch.device(device))


def unconnected(gpus: Sequence[Gpu]) -> list[tuple[str, str]]:
    """Pairs of GPUs that do not reach each other's memory."""
    import torch

    pairs = itertools.combinations(gpus, 2)
    return [
        (one.device, other.device)
        for one, other in pairs
        if not torch.cuda.can_device_access_peer(one.index, other.index)
    ]


def torch_cuda() -> str | None:
    """The version of CUDA that torch was built for, as in 13.0; None: for none."""
    import torch

    return torch.version.cuda


def driver_cuda(library: str = "libcuda.so.1") -> str | None:
    """The newest version of CUDA that the driver can serve, as in 13.0; None: no driver."""
    version = ctypes.c_int()
    try:
        status = ctypes.CDLL(library).cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return None
    return f"{version.value // 1000}.{version.value % 1000 // 10}" if status == 0 else None
