"""How does host memory come in huge pages? For weights that are read whole, and the KV cache."""

import math
import mmap

import torch
from torch import Tensor

_HUGE_PAGE = 2 << 20


def empty_bytes(size: int) -> Tensor:
    """Aligned uint8 memory; in huge pages where it is large (fewer misses of the address cache)."""
    if not _is_mapped(size):
        return torch.empty(size, dtype=torch.uint8)
    # Private: shared memory gets no huge pages. The extra room to start at the border of a huge
    # page is only address space, and the end stays in small pages: no memory is lost.
    memory = mmap.mmap(-1, size + _HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    whole = torch.frombuffer(memory, dtype=torch.uint8)
    start = -whole.data_ptr() % _HUGE_PAGE
    memory.madvise(mmap.MADV_HUGEPAGE, start, size // _HUGE_PAGE * _HUGE_PAGE)
    return whole[start : start + size]


def _is_mapped(size: int) -> bool:
    return size >= _HUGE_PAGE and hasattr(mmap, "MADV_HUGEPAGE")


def zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros; large ones on the host are in huge pages and take memory only once written."""
    size = math.prod(shape) * dtype.itemsize
    if device.type != "cpu" or not _is_mapped(size):
        return torch.zeros(shape, dtype=dtype, device=device)
    return empty_bytes(size).view(dtype).view(shape)
