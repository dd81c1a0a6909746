"""Weights, rows and the float64 answer, for the tests of the CPU kernels."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from moe_model.kernels.cpu import library
from moe_model.kernels.cpu.formats import FORMATS
from moe_model.kernels.cpu.packed import PackedMatrix, unpack
from tests.support.moe_model.float_packing import coded_rows

BUILT = library.load()
ISAS = BUILT.native.isas() if BUILT else []

needs_kernels = pytest.mark.skipif(BUILT is None, reason="built without a compiler, or another CPU")


def using(isa: str, monkeypatch: pytest.MonkeyPatch, num_threads: int = 2) -> Iterator[str]:
    """Fixture body: every kernel call of the test runs on this instruction set."""
    monkeypatch.setenv("EXPERTMESH_CPU_ISA", isa)
    library.load.cache_clear()
    library.need().set_threads(num_threads)
    yield isa
    monkeypatch.delenv("EXPERTMESH_CPU_ISA")
    library.load.cache_clear()
    library.load()


def formats_here() -> list[str]:
    """Formats with a kernel on the instruction set in use."""
    ids = library.need().format_ids
    return [name for name, weights in FORMATS.items() if weights.id in ids]


def random(*shape: int, seed: int = 0, scale: float = 1.0, dtype: torch.dtype = torch.bfloat16):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator) * scale).to(dtype)


def exact_linear(rows: Tensor, weight: PackedMatrix) -> tuple[Tensor, Tensor]:
    """rows @ weight^T in float64, of the numbers that the kernel multiplies, and the size of its
    terms, to which errors are relative."""
    seen = coded_rows(rows) if weight.format.startswith("int") else rows
    rows64, weight64 = seen.double(), unpack(weight).double()
    return F.linear(rows64, weight64), F.linear(rows64.abs(), weight64.abs())


def assert_close(found: Tensor, exact: Tensor, size: Tensor, tolerance: float) -> None:
    """|found - exact| <= tolerance * size, up to numbers too small for float32."""
    assert found.shape == exact.shape
    error = (found.double() - exact).abs()
    allowed = tolerance * size + 1e-35
    assert bool((error <= allowed).all()), f"{float((error / allowed).max()):.3g} times too far"
