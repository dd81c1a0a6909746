"""On which device does a service compute, and in which formats? What --device means. No torch."""

from collections.abc import Callable
from dataclasses import dataclass

from moe_model.gpus import Gpu, Gpus, read_gpus
from moe_model.weights.held_formats import HeldFormats


@dataclass(frozen=True, kw_only=True)
class Place:
    """A device and what is held there. `why`: why it is none that is faster; empty if it is."""

    device: str
    formats: HeldFormats
    gpu: Gpu | None = None
    why: str = ""

    def __str__(self) -> str:
        shown = self.device if self.gpu is None else str(self.gpu)
        return f"{shown}: {self.why}" if self.why else shown


def choose_place(
    device: str,
    formats_on: Callable[[str], HeldFormats],
    why_too_small: Callable[[Gpu, HeldFormats], str],
    *,
    read: Callable[[], Gpus] = read_gpus,
) -> Place:
    """For a --device: auto is the first GPU that can do all that is asked, or else the CPU.

    `formats_on` says for `cpu` or `cuda` what the flags mean there, or raises ValueError.

    Raises:
        ValueError: a GPU that is named is not there, not taken by the kernels or too small, or
            the flags contradict each other there.
    """
    if device == "cpu":
        return Place(device="cpu", formats=formats_on("cpu"))
    gpus = read()
    if device != "auto":
        gpu = gpus.at(device)
        if gpu.problem:
            raise ValueError(f"--device {device}: {gpu.problem}")
        formats = formats_on("cuda")
        problem = why_too_small(gpu, formats)
        if problem:
            raise ValueError(f"--device {device}: {problem}")
        why = gpus.why_no_kernels(formats.compute_dtype, gpu)
        return Place(device=gpu.device, formats=formats, gpu=gpu, why=why)
    problems = [] if gpus.found else [gpus.problem]
    for gpu in gpus.found:
        try:
            formats = formats_on("cuda")
        except ValueError as error:
            problems.append(str(error))
            break
        try:
            problem = gpus.why_no_kernels(formats.compute_dtype, gpu) or why_too_small(gpu, formats)
        except ValueError as error:  # it does not answer
            problem = str(error)
        if not problem:
            return Place(device=gpu.device, formats=formats, gpu=gpu)
        problems.append(problem)
    return Place(device="cpu", formats=formats_on("cpu"), why="; ".join(dict.fromkeys(problems)))
