"""The expert FFN in every format against float64: odd shapes, uneven loads, extremes, threads."""

import threading

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from moe_model.kernels.cpu.ffn import KernelExperts, expert_rows, expert_sums
from moe_model.maths.experts import ExpertWeights, combine_rows
from moe_model.maths.linear import linear
from tests.support.examples import examples
from tests.support.moe_model.float_packing import coded_rows, pack, put
from tests.support.moe_model.kernel_cases import (
    ISAS,
    assert_close,
    formats_here,
    needs_kernels,
    random,
    using,
)

pytestmark = needs_kernels

FORMATS = ("bf16", "fp8", "int8", "int4", "int4_g128")
# |found - float64| over the sum of the terms that w2 adds, given the rows' codes: two roundings to
# bfloat16 (2^-8 each at most), of which the first may move a code of the integer formats by one.
BOUND = {"bf16": 0.008, "fp8": 0.008, "int8": 0.014, "int4": 0.014, "int4_g128": 0.014}
# Relative root mean square error against float64 with uncoded rows: what coding them adds.
CODING = {"bf16": 0.003, "fp8": 0.003, "int8": 0.016, "int4": 0.016, "int4_g128": 0.016}


@pytest.fixture(params=ISAS)
def isa(request, monkeypatch):
    yield from using(request.param, monkeypatch)


def experts(format: str, num: int, d: int, f: int, scale: float = 1.0) -> KernelExperts:
    held = KernelExperts(num, d, f, format)
    for slot in range(num):
        w13 = random(2 * f, d, seed=slot, scale=scale / d**0.5, dtype=torch.float32)
        put(held, slot, w13, random(d, f, seed=slot + 90, scale=f**-0.5, dtype=torch.float32))
    return held


def ffn64(args: tuple[Tensor, ...], held: KernelExperts, *, code: bool) -> tuple[Tensor, Tensor]:
    """float64 rows of the pairs, and how large the terms are that w2 adds.

    `code`: of the rows as integer formats code them, else of the numbers given.
    """
    hidden, row_of_pair, slots, weights = args
    seen = coded_rows if code and held.format.startswith("int") else lambda rows: rows
    exact = torch.empty((len(slots), held.hidden_size), dtype=torch.float64)
    sizes = torch.empty_like(exact)
    for slot in slots.unique().tolist():
        pairs = (slots == slot).nonzero()[:, 0]
        w13, w2 = (weight.double() for weight in held.unpacked(slot))
        gate, up = F.linear(seen(hidden[row_of_pair[pairs]]).double(), w13).chunk(2, dim=1)
        activated = F.silu(gate) * up
        if code:
            activated = seen(activated.bfloat16()).double() if seen is coded_rows else activated
        weight = weights[pairs, None].double()
        exact[pairs] = F.linear(activated, w2) * weight
        sizes[pairs] = F.linear(activated.abs(), w2.abs()) * weight.abs()
    return exact, sizes


def message(num_rows: int, d: int, experts: list[int], top_k: int, seed: int = 0):
    """Each row takes `top_k` of `experts`, ascending."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand((num_rows, len(experts)), generator=generator).argsort(dim=1)[:, :top_k]
    slots = torch.tensor(experts)[order].sort(dim=1).values.flatten()
    weights = torch.rand(slots.shape[0], generator=generator) + 0.1
    rows = torch.arange(num_rows).repeat_interleave(top_k)
    return random(num_rows, d, seed=seed), rows, slots, weights


def here(format: str) -> str:
    if format not in formats_here():
        pytest.skip(f"no {format} kernel on this instruction set")
    return format


@pytest.mark.parametrize("format", FORMATS)
@examples(40, few=8)
@given(
    d=st.integers(1, 150) | st.integers(250, 300),
    f=st.integers(1, 150),
    num_rows=st.integers(1, 60),
    used=st.sets(st.integers(0, 4), min_size=1),
    top_k=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_is_the_float64_ffn_on_odd_shapes(format, d, f, num_rows, used, top_k, seed):
    """Unused experts, one that all rows use, and everything between."""
    held = experts(here(format), 5, d, f)
    args = message(num_rows, d, sorted(used), min(top_k, len(used)), seed)
    exact, size = ffn64(args, held, code=True)
    rows = expert_rows(*args, held)
    assert_close(rows, exact, size, BOUND[format])
    assert torch.equal(expert_sums(*args, held), combine_rows(rows, args[1], num_rows))


@pytest.mark.parametrize("format", FORMATS)
def test_thousands_of_rows(isa, format):
    """4,096 rows of one expert, and the error that coding the rows adds to all of it."""
    held = experts(here(format), 3, 130, 66)
    args = message(4096, 130, [1], 1)
    rows = expert_rows(*args, held)
    exact, size = ffn64(args, held, code=True)
    assert_close(rows, exact, size, BOUND[format])
    plain, _ = ffn64(args, held, code=False)
    assert float((rows.double() - plain).norm() / plain.norm()) < CODING[format]
    some = torch.tensor([0, 1, 2047, 4095])
    alone = expert_rows(args[0][some], torch.arange(4), args[2][some], args[3][some], held)
    assert torch.equal(alone, rows[some])


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("weights,hidden", [(1e-12, 1e12), (1e10, 1e-10), (1e9, 1e6), (1, 1e-30)])
def test_extreme_scales(isa, format, weights, hidden):
    held = experts(here(format), 2, 140, 70, scale=weights)
    args = message(9, 140, [0, 1], 2)
    args = (args[0] * hidden, *args[1:])
    exact, size = ffn64(args, held, code=True)
    assert_close(expert_rows(*args, held), exact, size, BOUND[format])


@pytest.mark.parametrize("format", FORMATS)
def test_zero_and_denormal_rows(isa, format):
    """Zeros give zeros; too small numbers give almost zero and no NaN elsewhere."""
    held = experts(here(format), 2, 140, 70)
    hidden, rows, slots, weights = message(6, 140, [0, 1], 2)
    expected = expert_rows(hidden, rows, slots, weights, held).view(6, 2, -1)
    hidden[1] = 0
    hidden[3] *= 1e-39  # bfloat16 denormals
    hidden[4, :128] *= 1e-39
    found = expert_rows(hidden, rows, slots, weights, held).view(6, 2, -1)
    assert not found[1].any()
    assert float(found[3].abs().max()) < 1e-35
    exact, size = ffn64((hidden, rows, slots, weights), held, code=True)
    assert_close(found[4], exact[8:10], size[8:10], BOUND[format])
    assert torch.equal(found[[0, 2, 5]], expected[[0, 2, 5]])


@pytest.mark.parametrize("format", FORMATS)
def test_zero_and_denormal_weights(isa, format):
    held = KernelExperts(2, 140, 70, here(format))
    w13 = random(140, 140, scale=0.1, dtype=torch.float32)
    w13[5:9] = 0
    w13[9:12] *= 1e-39
    put(held, 0, w13, random(140, 70, dtype=torch.float32))
    put(held, 1, torch.zeros(140, 140), torch.zeros(140, 70))
    args = message(5, 140, [0, 1], 2)
    found = expert_rows(*args, held)
    exact, size = ffn64(args, held, code=True)
    assert_close(found, exact, size, BOUND[format])
    assert not found[args[2] == 1].any()


def test_float32_experts_are_torchs(isa):
    """No native kernel: refused there; torch's path holds a float32 bound."""
    held = experts("f32", 3, 37, 21)
    args = message(50, 37, [0, 2], 2)
    with pytest.raises(ValueError, match="bfloat16 rows"):
        expert_rows(*args, held)
    args = (args[0].float(), *args[1:])
    stacks = [torch.stack(parts) for parts in zip(*map(held.unpacked, range(3)), strict=True)]
    found = ExpertWeights(w13_EHD=stacks[0], w2_EDF=stacks[1]).rows(*args)
    assert_close(found, *ffn64(args, held, code=False), 1e-5)


def test_concurrent_calls_give_the_same_bits(isa):
    """Every format at once, linears between experts, from several threads."""
    calls = []
    for seed, format in enumerate(formats_here()):
        weight = pack(random(96, 130, seed=seed), format)
        rows = random(7, 130, seed=seed, dtype=weight.weights.row_dtype)
        calls.append(lambda rows=rows, weight=weight: linear(rows, weight))
        if format != "f32":
            held, args = experts(format, 3, 130, 40), message(20, 130, [0, 1, 2], 2, seed)
            calls.append(lambda args=args, held=held: expert_sums(*args, held))
    expected, wrong = [call() for call in calls], []

    def caller(offset: int) -> None:
        for turn in range(12 * len(calls)):
            which = (turn + offset) % len(calls)
            if not torch.equal(calls[which](), expected[which]):
                wrong.append(which)

    threads = [threading.Thread(target=caller, args=(offset,)) for offset in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in threads)
    assert not wrong
