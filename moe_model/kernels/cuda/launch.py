"""How is a kernel launched? With everything that its bits depend on, and without asking twice.

Whether products and sums are fused is always said: Triton's default differs between releases. Its
interpreter never fuses them.

Before each launch Triton looks at every argument, to find what it compiled for such arguments. Here
that is found by what it looks at: dtypes, which addresses and numbers are multiples of 16, which
numbers are 1.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import triton

_INTERPRETED = bool(triton.knobs.runtime.interpret)


@dataclass(frozen=True)
class Compiled:
    """One of a kernel's binaries on one device."""

    of_grid: Callable[[tuple[int, int, int]], Callable[..., None]]
    """Triton's own way to launch a binary that is known."""
    constants: tuple[Any, ...]
    """The kernel's last arguments."""


class Launches:
    """What Triton compiled, by all that it looks at."""

    def __init__(self) -> None:
        self._compiled: dict[Hashable, Compiled] = {}

    def launch(
        self, kernel: Any, grid: Sequence[int], args: Sequence[Any], options: Mapping[str, Any]
    ) -> None:
        """`args`: tensors, int and float; `options`: the kernel's constants, and Triton's."""
        driver = triton.runtime.driver.active
        device = driver.get_current_device()
        seen = [kernel.fn, device, *options, *options.values()]
        values: list[Any] = []
        for arg in args:
            if type(arg) is int:
                seen.append(1 if arg == 1 else (not arg % 16, -(2**31) <= arg < 2**31, arg < 2**63))
                values.append(arg)
            elif type(arg) is float:
                seen.append(float)
                values.append(arg)
            else:
                address = arg.data_ptr()
                seen += (arg.dtype, not address % 16)
                values.append(address)
        key = tuple(seen)
        compiled = self._compiled.get(key)
        if compiled is not None:
            stream = driver.get_current_stream(device)
            x, y, z, *_ = (*grid, 1, 1)
            compiled.of_grid((x, y, z))(*values, *compiled.constants, stream=stream)
            return
        made = kernel[tuple(grid)](*args, **options)
        constants = tuple(options[name] for name in kernel.arg_names[len(args) :])
        self._compiled[key] = Compiled(made.__getitem__, constants)


@cache
def _launches() -> Launches:
    return Launches()


def launch(kernel: Any, grid: Sequence[int], *args: Any, **options: Any) -> None:
    """Products and sums are fused."""
    _launch(kernel, grid, args, options, fused=True)


def launch_unfused(kernel: Any, grid: Sequence[int], *args: Any, **options: Any) -> None:
    """Every product is rounded, as on a CPU."""
    _launch(kernel, grid, args, options, fused=False)


def _launch(
    kernel: Any, grid: Sequence[int], args: Sequence[Any], options: dict[str, Any], *, fused: bool
) -> None:
    if _INTERPRETED:
        kernel[tuple(grid)](*args, **options)
    else:
        _launches().launch(kernel, grid, args, {**options, "enable_fp_fusion": fused})


def power_of_two(least: int) -> int:
    """The smallest that is not less. Triton's own is a kernel's word, and slow on the host."""
    return 1 << (least - 1).bit_length()


def shared_memory_bytes(device: torch.device) -> int:
    """That one program may have. 99 KiB on GPUs for desktops, 163 and more on those for servers."""
    if device.type != "cuda":
        return 1 << 30
    index = torch.cuda.current_device() if device.index is None else device.index
    found: int = triton.runtime.driver.active.utils.get_device_properties(index)["max_shared_mem"]
    return found
