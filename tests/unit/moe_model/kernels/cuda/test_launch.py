"""A kernel that is known is launched as Triton would, without asking Triton which one it is."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import triton

from moe_model.kernels.cuda.launch import Launches, power_of_two
from tests.support.places import ROOT

ROWS = torch.zeros(64)


@pytest.fixture
def device() -> Iterator[SimpleNamespace]:
    """A driver's current device and stream."""
    found = SimpleNamespace(number=0, stream=7)
    driver = SimpleNamespace(
        get_current_device=lambda: found.number, get_current_stream=lambda _: found.stream
    )
    before, triton.runtime.driver._active = triton.runtime.driver._active, driver
    yield found
    triton.runtime.driver._active = before


class Kernel:
    """As Triton's: gives what it compiled, which tells how it is launched."""

    arg_names = ("rows", "size", "scale", "EVEN", "TILE")

    def __init__(self) -> None:
        self.fn = lambda: None
        self.asked = 0
        self.launched: list[tuple[Any, ...]] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., "Kernel.Binary"]:
        def ask(*_: Any, **options: Any) -> Kernel.Binary:
            self.asked += 1
            return Kernel.Binary(self)

        return ask

    class Binary:
        def __init__(self, kernel: "Kernel"):
            self.kernel, self.number = kernel, kernel.asked

        def __getitem__(self, grid: tuple[int, int, int]) -> Callable[..., None]:
            def run(*values: Any, stream: int) -> None:
                self.kernel.launched.append((self.number, grid, values, stream))

            return run


OPTIONS = {"TILE": 16, "EVEN": True, "num_warps": 4}


def test_triton_is_asked_once_and_the_binary_gets_addresses_numbers_and_constants(
    device: SimpleNamespace,
) -> None:
    launches, kernel = Launches(), Kernel()
    launches.launch(kernel, (3,), (ROWS, 48, 0.5), OPTIONS)
    assert kernel.asked == 1
    assert not kernel.launched
    device.stream = 9
    launches.launch(kernel, [5, 2], (ROWS[4:], 96, 0.25), OPTIONS)
    assert kernel.asked == 1
    address = ROWS.data_ptr() + 16
    assert kernel.launched == [(1, (5, 2, 1), (address, 96, 0.25, True, 16), 9)]


@pytest.mark.parametrize(
    ("args", "options"),
    [
        ((ROWS[1:], 48, 0.5), OPTIONS),
        ((ROWS.double(), 48, 0.5), OPTIONS),
        ((ROWS, 47, 0.5), OPTIONS),
        ((ROWS, 1, 0.5), OPTIONS),
        ((ROWS, 2**31, 0.5), OPTIONS),
        ((ROWS, 2**63, 0.5), OPTIONS),
        ((ROWS, 48, 1), OPTIONS),
        ((ROWS, 48, 0.5), {**OPTIONS, "TILE": 32}),
        ((ROWS, 48, 0.5), {**OPTIONS, "num_warps": 8}),
        ((ROWS, 48, 0.5), {**OPTIONS, "enable_fp_fusion": False}),
    ],
)
def test_triton_is_asked_again_for_all_that_it_compiles_anew_for(
    device: SimpleNamespace, args: tuple[Any, ...], options: dict[str, Any]
) -> None:
    launches, kernel = Launches(), Kernel()
    launches.launch(kernel, (3,), (ROWS, 48, 0.5), OPTIONS)
    launches.launch(kernel, (3,), args, options)
    assert kernel.asked == 2
    launches.launch(kernel, (3,), args, options)
    assert [number for number, *_ in kernel.launched] == [2]
    device.number = 1
    launches.launch(kernel, (3,), args, options)
    assert kernel.asked == 3, "another device has binaries of its own"
    launches.launch(Kernel(), (3,), args, options)
    assert len(kernel.launched) == 1


@pytest.mark.parametrize(("least", "found"), [(1, 1), (2, 2), (3, 4), (48, 64), (64, 64)])
def test_power_of_two(least: int, found: int) -> None:
    assert power_of_two(least) == found


SCRIPT = """
import itertools, random
import torch, triton, triton.language as tl
from triton.backends.compiler import GPUTarget
from moe_model.kernels.cuda.launch import launch, launch_unfused

@triton.jit(do_not_specialize=["count"])
def kernel(rows, out, stride, count, scale, FLAG: tl.constexpr, C: tl.constexpr):
    at = tl.program_id(0) * stride + tl.arange(0, C)
    x = tl.load(rows + at, mask=at < count, other=0)
    tl.store(out + at, x * scale + 1.0 if FLAG else x, mask=at < count)

launched = []

class Launcher:
    def __init__(self, src, metadata): pass
    def __call__(self, x, y, z, stream, function, packed, metadata, enter, leave, *args):
        values = [arg.data_ptr() if isinstance(arg, torch.Tensor) else arg for arg in args]
        launched.append(((x, y, z), stream, function, packed, values))

numbers = itertools.count(100)
utils = type("Utils", (), {
    "load_binary": staticmethod(lambda *_: (object(), next(numbers), 32, 0, 1024)),
    "get_device_properties": staticmethod(lambda _: {"max_shared_mem": 232448}),
    "set_printf_fifo_size": staticmethod(lambda _: None),
})

class Driver:
    launcher_cls, utils = Launcher, utils
    get_current_device = staticmethod(lambda: 0)
    get_current_stream = staticmethod(lambda device: 5)
    get_current_target = staticmethod(lambda: GPUTarget("cuda", 90, 32))

triton.runtime.driver.set_active(Driver())
memory = torch.zeros(4096)
choose = random.Random(3).choice
binaries = set()
for _ in range(150):
    rows = choose([memory, memory[1:], memory.int(), memory.bfloat16()])
    out = choose([memory[64:], memory[3:]])
    args = (rows, out, choose([1, 2, 16, 100, 2**40]), choose([1, 5, 48]), choose([1.0, 0.3]))
    options = {"FLAG": choose([True, False]), "C": choose([16, 32]), "num_warps": choose([1, 4])}
    grid = choose([(3,), (2, 2), (1, 1, 4)])
    ours, fused = choose([(launch, True), (launch_unfused, False)])
    ours(kernel, grid, *args, **options)
    ours(kernel, grid, *args, **options)
    kernel[grid](*args, **options, enable_fp_fusion=fused)
    first, second, tritons = launched[-3:]
    assert first == second == tritons, (first, second, tritons)
    binaries.add(tritons[2])
print(len(launched), len(binaries))
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_is_launched_is_what_triton_launches(tmp_path: Path) -> None:
    """With Triton's own compiler, and a driver that only notes down."""
    script = tmp_path / "launch_all.py"
    script.write_text(SCRIPT)
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {
        "TRITON_CACHE_DIR": str(tmp_path),
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
    }
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr[-3000:]
    launched, binaries = map(int, done.stdout.split())
    assert launched == 450
    assert binaries > 20
