"""The packed linear against float64; a row's bits depend on nothing but the row."""

import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from moe_model.host_memory import empty_bytes
from moe_model.kernels.cpu import library
from moe_model.kernels.cpu.formats import FORMATS
from moe_model.kernels.cpu.packed import PackedMatrix, unpack
from moe_model.maths.linear import linear
from tests.support.examples import examples
from tests.support.moe_model.float_packing import pack
from tests.support.moe_model.kernel_cases import (
    ISAS,
    assert_close,
    exact_linear,
    formats_here,
    needs_kernels,
    random,
    using,
)

pytestmark = needs_kernels

# Against the numbers of the packed weight: float32 sums of exact products.
SUM_ERROR = 1e-5
BF16_STEP = 2.0**-8


@pytest.fixture(params=ISAS)
def isa(request, monkeypatch):
    yield from using(request.param, monkeypatch)


@pytest.mark.parametrize("name", ["bf16", "f32"])
@pytest.mark.parametrize("outputs,inputs", [(1, 1), (31, 7), (32, 128), (33, 130), (100, 257)])
def test_packing_keeps_what_it_should(name, outputs, inputs):
    weight = random(outputs, inputs, dtype=torch.float32 if name == "f32" else torch.bfloat16)
    packed = pack(weight, name)
    assert packed.data.data_ptr() % 64 == 0
    assert torch.equal(unpack(packed), weight.float())


@pytest.mark.parametrize("outputs,inputs", [(1, 1), (31, 7), (32, 128), (65, 130), (100, 1537)])
def test_is_the_float64_product(isa, outputs, inputs):
    for name in formats_here():
        weight = pack(random(outputs, inputs, seed=1), name)
        for num_rows in (1, 2, 3, 5, 12, 13, 49, 241):
            rows = random(num_rows, inputs, seed=num_rows, dtype=weight.weights.row_dtype)
            exact, size = exact_linear(rows, weight)
            found = linear(rows, weight, out_dtype=torch.float32)
            assert_close(found, exact, size, SUM_ERROR)
            rounded = linear(rows, weight, out_dtype=torch.bfloat16)
            assert torch.equal(rounded, found.to(torch.bfloat16))


@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1e-4, 1e4, 1e18])
def test_extreme_scales(isa, scale):
    """Denormal weights may count as zero; large ones must not overflow in between."""
    for name in ("bf16", "f32"):
        weight = pack(random(64, 96, seed=1, scale=scale), name)
        rows = random(4, 96, dtype=weight.weights.row_dtype)
        exact, size = exact_linear(rows, weight)
        assert_close(linear(rows, weight, out_dtype=torch.float32), exact, size, 1e-5)


def test_infinity_and_nan_come_through(isa):
    for name in ("bf16", "f32"):
        weight = pack(torch.ones(40, 6), name)
        rows = torch.ones(3, 6, dtype=weight.weights.row_dtype)
        rows[0, 1], rows[2, 3] = torch.inf, torch.nan
        found = linear(rows, weight)
        assert bool((found[0] == torch.inf).all())
        assert bool((found[1] == 6).all())
        assert bool(found[2].isnan().all())


@pytest.mark.parametrize("num_rows", [2, 12, 13, 100, 512])
def test_a_row_depends_on_no_other_row_and_no_thread(isa, num_rows):
    for name in formats_here():
        weight = pack(random(70, 260, seed=1), name)
        rows = random(num_rows, 260, dtype=weight.weights.row_dtype)
        together = linear(rows, weight, out_dtype=torch.float32)
        for some in (range(0, num_rows, 7), range(num_rows - 1, -1, -3)):
            picked = linear(rows[list(some)], weight, out_dtype=torch.float32)
            assert torch.equal(picked, together[list(some)])
        alone = linear(rows[1:2], weight, out_dtype=torch.float32)
        assert torch.equal(alone, together[1:2])
        for num_threads in (1, 3):
            library.need().set_threads(num_threads)
            assert torch.equal(linear(rows, weight, out_dtype=torch.float32), together)


def test_calls_from_several_threads(isa):
    weights = [pack(random(96, 128, seed=i), "bf16") for i in range(4)]
    rows = random(9, 128)
    expected = [linear(rows, weight) for weight in weights]
    wrong = []

    def call(i: int) -> None:
        for _ in range(200):
            if not torch.equal(linear(rows, weights[i]), expected[i]):
                wrong.append(i)

    threads = [threading.Thread(target=call, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for num_threads in (1, 3, 2):  # the pool may be resized meanwhile
        library.need().set_threads(num_threads)
    for thread in threads:
        thread.join(timeout=60)
    assert not wrong


@examples(60)
@given(
    name=st.sampled_from([*FORMATS, "nothing"]),
    outputs=st.integers(-1, 70),
    inputs=st.integers(-1, 300),
    size=st.integers(0, 50_000),
    exact_size=st.booleans(),
    row_inputs=st.integers(0, 300),
    num_rows=st.integers(0, 20),
    dtype=st.sampled_from([torch.bfloat16, torch.float32, torch.float64, torch.int8]),
)
def test_wrong_sizes_are_value_errors(
    name, outputs, inputs, size, exact_size, row_inputs, num_rows, dtype
):
    """Whatever the sizes: a ValueError or a result, never a crash."""
    if exact_size and name in FORMATS:
        outputs, inputs = max(outputs, 1), max(inputs, 1)
        size, row_inputs = FORMATS[name].size_bytes(outputs, inputs), inputs
    try:
        weight = PackedMatrix(name, outputs, inputs, empty_bytes(size).zero_())
        out = linear(torch.ones(num_rows, row_inputs, dtype=dtype), weight)
    except ValueError:
        return
    assert out.shape == (num_rows, outputs)
    assert not out.any()


def test_no_instruction_set_is_a_choice(monkeypatch):
    monkeypatch.setenv("EXPERTMESH_CPU_ISA", "none")
    library.load.cache_clear()
    assert library.load() is None
    monkeypatch.setenv("EXPERTMESH_CPU_ISA", "sse9")
    library.load.cache_clear()
    with pytest.raises(ValueError, match="avx512, avx2 or none"):
        library.load()
    monkeypatch.undo()
    library.load.cache_clear()
    library.load()
