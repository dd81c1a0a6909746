"""How is a kernel launched? With everything that its bits depend on.

Whether products and sums are fused is always said: Triton's default differs between releases. Its
interpreter never fuses them.
"""

from collections.abc import Sequence
from typing import Any

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
