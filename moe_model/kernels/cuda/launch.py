"""How is a kernel launched? With everything that its bits depend on.

Whether products and sums are fused is always said: Triton's default differs between releases. Its
interpreter never fuses them.
"""

from collections.abc import Sequence
from typing import Any

import torch
import triton

_INTERPRETED = bool(triton.knobs.runtime.interpret)


def launch(kernel: Any, grid: Sequence[int], *args: Any, **options: Any) -> None:
    """Products and sums are fused."""
    fused = {} if _INTERPRETED else {"enable_fp_fusion": True}
    kernel[tuple(grid)](*args, **options, **fused)


def launch_unfused(kernel: Any, grid: Sequence[int], *args: Any, **options: Any) -> None:
    """Every product is rounded, as on a CPU."""
    fused = {} if _INTERPRETED else {"enable_fp_fusion": False}
    kernel[tuple(grid)](*args, **options, **fused)


def shared_memory_bytes(device: torch.device) -> int:
    """That one program may have. 99 KiB on GPUs for desktops, 163 and more on those for servers."""
    if device.type != "cuda":
        return 1 << 30
    index = torch.cuda.current_device() if device.index is None else device.index
    found: int = triton.runtime.driver.active.utils.get_device_properties(index)["max_shared_mem"]
    return found
