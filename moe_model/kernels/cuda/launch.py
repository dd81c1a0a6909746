"""How is a kernel launched? With what its bits depend on, and early where the device can.

From compute capability 9.0 on, a kernel of a chain may start while the one before it ends
(programmatic dependent launch). It then fetches weights into the L2 cache, which no kernel writes,
and waits for its predecessor before it reads or writes anything else.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
import triton
import triton.language as tl

_INTERPRETED = bool(triton.knobs.runtime.interpret)


def launch(kernel: Any, grid: Sequence[int], *args: Any, **options: Any) -> None:
    """On the device of `args[0]`. `kernel` begins with `wait_for_inputs(EARLY)`.

    Products and sums are fused: Triton's default for it differs between releases, and bits with it.
    """
    early = not _INTERPRETED and starts_early(args[0].device.index or 0)
    if not _INTERPRETED:
        options |= {"enable_fp_fusion": True, "launch_pdl": early}
    kernel[tuple(grid)](*args, EARLY=early, **options)


@lru_cache
def starts_early(device_idx: int) -> bool:
    return torch.cuda.get_device_capability(device_idx) >= (9, 0)


@triton.jit
def wait_for_inputs(EARLY: tl.constexpr):
    """Lets the next kernel start; returns when the kernels before have ended."""
    if EARLY:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()


@triton.jit
def prefetch_rows(rows_B, num_groups, WIDTH: tl.constexpr, BITS: tl.constexpr):
    """Ask for WIDTH codes of BITS at each address, and at the same places of groups that follow."""
    for group in range(num_groups):
        for line in tl.static_range((WIDTH * BITS + 1023) // 1024):
            where = rows_B + (group * 64 * WIDTH + line * (1024 // BITS))
            tl.inline_asm_elementwise(
                "prefetch.global.L2 [$1]; mov.u32 $0, 0;",
                "=r,l", [where.to(tl.uint64)], dtype=tl.int32, is_pure=False, pack=1,
            )  # fmt: skip
