"""int8, int4 and fp8 weights: what packing preserves, and kernels on extreme numbers."""

import pytest
import torch

from moe_model.kernels.cpu import library
from moe_model.kernels.cpu.formats import FORMATS
from moe_model.kernels.cpu.packed import unpack
from moe_model.maths.linear import linear
from tests.support.moe_model.float_packing import coded_rows, pack
from tests.support.moe_model.kernel_cases import (
    ISAS,
    assert_close,
    exact_linear,
    formats_here,
    needs_kernels,
    random,
    using,
)

# Relative error (RMS) of a normally distributed weight: measured 0.0068, 0.081, 0.097, 0.027.
WEIGHT_ERROR = {"int8": 0.008, "int4": 0.083, "int4_g128": 0.1, "fp8": 0.028}
INTEGER = ("int8", "int4", "int4_g128")


@pytest.fixture(params=ISAS)
def isa(request, monkeypatch):
    yield from using(request.param, monkeypatch)


def relative_error(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found.double() - exact.double()).norm() / exact.double().norm())


@pytest.mark.parametrize("name", WEIGHT_ERROR)
@pytest.mark.parametrize("outputs,inputs", [(1, 1), (31, 7), (64, 1024), (33, 130), (100, 257)])
def test_unpacking_is_near(name, outputs, inputs):
    weight = random(outputs, inputs, dtype=torch.float32)
    found = unpack(pack(weight, name))
    assert found.shape == weight.shape
    assert relative_error(found, weight) < WEIGHT_ERROR[name] * (1 if outputs == 64 else 1.3)


@pytest.mark.parametrize("name", WEIGHT_ERROR)
@pytest.mark.parametrize("scale", [1e-25, 1e-5, 1e5, 1e25])
def test_any_scale_is_as_good(name, scale):
    weight = random(32, 256, scale=scale, dtype=torch.float32)
    assert relative_error(unpack(pack(weight, name)), weight) < WEIGHT_ERROR[name] * 1.1


@pytest.mark.parametrize("name", INTEGER)
def test_vanishing_weights_become_zeros(name):
    weight = random(32, 256, dtype=torch.float32)
    weight[:, 128:] *= 1e-35
    found = unpack(pack(weight, name))
    assert not found[:, 128:].any()
    assert found[:, :128].any()


@pytest.mark.parametrize("name", INTEGER)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
def test_weights_beyond_measure_are_refused(name, bad):
    weight = torch.ones(3, 200)
    weight[1, 150] = bad
    with pytest.raises(ValueError, match="2\\^96"):
        pack(weight, name)


def test_zeros_stay_zeros():
    for name in FORMATS:
        assert not unpack(pack(torch.zeros(5, 40), name)).any()


def test_each_fp8_code_is_its_number(isa):
    if "fp8" not in formats_here():
        pytest.skip("no fp8 kernel on this instruction set")
    codes = torch.arange(256, dtype=torch.uint8)
    codes = codes[(codes & 0x7F) != 0x7F].view(torch.float8_e4m3fn).float()
    weight = torch.zeros(codes.shape[0], 128)
    weight[:, 0], weight[:, 1] = 448.0, codes  # 448: so that the scale is 1
    rows = torch.zeros(1, 128, dtype=torch.bfloat16)
    rows[0, 1] = 1.0
    found = linear(rows, pack(weight, "fp8"), out_dtype=torch.float32)
    assert torch.equal(found[0], codes)


@needs_kernels
@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1e-4, 1e4, 1e12])
def test_extreme_scales(isa, scale):
    for name in formats_here():
        if name not in WEIGHT_ERROR:
            continue
        weight = pack(random(64, 160, seed=1, scale=scale if scale > 1e-25 else 1e-4), name)
        rows = random(4, 160, scale=scale)
        exact, size = exact_linear(rows, weight)
        assert_close(linear(rows, weight, out_dtype=torch.float32), exact, size, 1e-5)


@needs_kernels
def test_a_row_that_is_not_finite_spoils_itself_only(isa):
    for name in formats_here():
        weight = pack(random(40, 300), name)
        rows = random(4, 300, dtype=weight.weights.row_dtype)
        rows[1, 5], rows[3, 200] = torch.nan, torch.inf
        found = linear(rows, weight, out_dtype=torch.float32)
        assert bool((~found[1].isfinite()).all())
        assert bool((~found[3].isfinite()).all())
        assert torch.equal(found[::2], linear(rows[::2], weight, out_dtype=torch.float32))


def test_dynamic_codes_of_rows_are_near():
    rows = random(50, 3072)
    assert relative_error(coded_rows(rows), rows) < 0.008


@needs_kernels
def test_integer_formats_give_the_same_bits_on_every_instruction_set(monkeypatch):
    rows, found = random(9, 290), {}
    for isa in ISAS:
        for _ in using(isa, monkeypatch):
            for name in INTEGER:
                weight = pack(random(70, 290, seed=3), name)
                found.setdefault(name, []).append(linear(rows, weight, out_dtype=torch.float32))
    assert all(torch.equal(result, results[0]) for results in found.values() for result in results)


@needs_kernels
def test_thousands_of_rows(isa):
    for name in formats_here():
        weight = pack(random(33, 160, seed=1), name)
        rows = random(4096, 160, dtype=weight.weights.row_dtype)
        together = linear(rows, weight, out_dtype=torch.float32)
        exact, size = exact_linear(rows, weight)
        assert_close(together, exact, size, 1e-5)
        library.need().set_threads(1)
        assert torch.equal(
            linear(rows[4000:4007], weight, out_dtype=torch.float32), together[4000:4007]
        )
