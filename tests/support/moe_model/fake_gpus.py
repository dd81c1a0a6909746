"""GPUs as `moe_model.gpus` would find them, for machines without."""

from collections.abc import Callable

from moe_model.gpus import Gpu, Gpus

Card = tuple[str, int, tuple[int, int]]
"""Name, GiB, compute capability."""
H200: Card = ("NVIDIA H200", 140, (9, 0))
H100 = ("NVIDIA H100 80GB HBM3", 79, (9, 0))
T4 = ("Tesla T4", 15, (7, 5))
RTX_4090 = ("NVIDIA GeForce RTX 4090", 24, (8, 9))


def gpus(*cards: Card, has_triton: bool = True) -> Callable[[], Gpus]:
    """A reader that finds these cards."""
    found = tuple(
        Gpu(index=index, name=name, total_bytes=size << 30, capability=capability)
        for index, (name, size, capability) in enumerate(cards)
    )
    problem = "" if found else "torch finds no GPU: Found no NVIDIA driver on your system"
    return lambda: Gpus(found=found, problem=problem, has_triton=has_triton)


def free_gib(*sizes: float) -> Callable[[str], int]:
    """Free memory of each card, in GiB."""
    return lambda device: int(sizes[int(device.partition(":")[2])] * 2**30)
