"""How is a kernel launched? With everything that its bits depend on."""

from collections.abc import Sequence
from typing import Any

import triton

_INTERPRETED = bool(triton.knobs.runtime.interpret)


def launch(kernel: Any, grid: Sequence[int], *args: Any, **options: Any) -> None:
    """Products and sums are fused: Triton's default differs between releases, and bits with it."""
    fused = {} if _INTERPRETED else {"enable_fp_fusion": True}
    kernel[tuple(grid)](*args, **options, **fused)
