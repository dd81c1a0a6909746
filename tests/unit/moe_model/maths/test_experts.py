"""The grouped FFN, its rounding points, and FP8 blocks."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from moe_model.kernels.torch.experts import OneDnnExperts
from moe_model.maths.experts import ExpertWeights, combine_rows, run_experts
from moe_model.maths.linear import can_pack
from moe_model.quant import (
    FP8_MAX,
    StoredExpert,
    StoredMatrix,
    dequantise,
    expand_scales,
    has_nan_codes,
    quantise,
    scale_shape,
)
from tests.support.examples import examples


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def dyadic(*shape: int, seed: int, bits: int = 2) -> torch.Tensor:
    """Multiples of 2^-bits between -2 and 2: sums of their products are exact in float32."""
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randint(-(2 ** (bits + 1)), 2 ** (bits + 1) + 1, shape, generator=generator) / 2**bits
    )


def held(num: int, wide: int, inner: int, dtype: torch.dtype, seed: int = 0) -> ExpertWeights:
    return ExpertWeights(
        w13_EHD=(noise(num, 2 * inner, wide, seed=seed) / wide**0.5).to(dtype),
        w2_EDF=(noise(num, wide, inner, seed=seed + 1) / inner**0.5).to(dtype),
    )


def naive_rows(hidden, rows, slots, weights, experts: ExpertWeights) -> torch.Tensor:
    """Pair by pair, with the rounding points of architecture.md."""
    out = []
    inner = experts.w2_EDF.shape[2]
    for row, slot, weight in zip(rows.tolist(), slots.tolist(), weights, strict=True):
        w13, w2 = experts.w13_EHD[slot].float(), experts.w2_EDF[slot].float()
        both = w13 @ hidden[row].float()
        activated = (F.silu(both[:inner]) * both[inner:]).to(hidden.dtype)
        out.append(((w2 @ activated.float()) * weight).to(hidden.dtype))
    return torch.stack(out)


@examples(60)
@given(
    st.integers(1, 9),
    st.integers(1, 6),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(0, 999),
)
def test_grouped_rows_are_the_naive_loop(
    pairs: int, experts: int, wide: int, inner: int, seed: int
):
    generator = torch.Generator().manual_seed(seed)
    hidden = noise(4, wide, seed=seed)
    rows = torch.randint(0, 4, (pairs,), generator=generator)
    slots = torch.randint(0, experts, (pairs,), generator=generator)
    weights = torch.rand(pairs, generator=generator)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 3e-2)):
        stack = held(experts, wide, inner, dtype, seed)
        got = stack.rows(hidden.to(dtype), rows, slots, weights)
        assert got.dtype == dtype
        expected = naive_rows(hidden.to(dtype), rows, slots, weights, stack)
        torch.testing.assert_close(got, expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("seed", range(8))
def test_bfloat16_rounding_points_are_exact(seed: int):
    """With inputs whose sums are exact in float32, every bit must match the definition."""
    wide, inner, experts, pairs = 24, 16, 3, 30
    stack = ExpertWeights(
        w13_EHD=dyadic(experts, 2 * inner, wide, seed=seed).bfloat16(),
        # One weight per output: no sum, so no order of summation.
        w2_EDF=torch.stack(
            [
                torch.eye(wide, inner)[
                    torch.randperm(wide, generator=torch.Generator().manual_seed(seed + e))
                ]
                * 0.75
                for e in range(experts)
            ]
        ).bfloat16(),
    )
    hidden = dyadic(6, wide, seed=seed + 50).bfloat16()
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(0, 6, (pairs,), generator=generator)
    slots = torch.randint(0, experts, (pairs,), generator=generator)
    weights = torch.rand(pairs, generator=generator)
    got = stack.rows(hidden, rows, slots, weights)
    assert torch.equal(got, naive_rows(hidden, rows, slots, weights, stack))
    early = rounded_early(hidden, rows, slots, weights, stack)
    assert not torch.equal(got, early), "the inputs cannot tell the rounding points apart"


def rounded_early(hidden, rows, slots, weights, experts: ExpertWeights) -> torch.Tensor:
    """What rounding gate and up to bfloat16 before SiLU would give: not the definition."""
    out = []
    inner = experts.w2_EDF.shape[2]
    for row, slot, weight in zip(rows.tolist(), slots.tolist(), weights, strict=True):
        both = (experts.w13_EHD[slot].float() @ hidden[row].float()).bfloat16()
        activated = F.silu(both[:inner]) * both[inner:]
        out.append((experts.w2_EDF[slot].float() @ activated.float() * weight).bfloat16())
    return torch.stack(out)


needs_packing = pytest.mark.skipif(
    not can_pack(torch.bfloat16, "cpu"), reason="torch has no packed bfloat16 weights here"
)


def stored(stack: ExpertWeights, slot: int) -> StoredExpert:
    """As a checkpoint would give it."""
    inner = stack.w2_EDF.shape[2]
    w13 = stack.w13_EHD[slot]
    matrices = {"w1": w13[:inner], "w3": w13[inner:], "w2": stack.w2_EDF[slot]}
    return StoredExpert(
        **{
            name: StoredMatrix(values=values, scales=None, block=(128, 128), where=name)
            for name, values in matrices.items()
        }
    )


def packed(stack: ExpertWeights) -> OneDnnExperts:
    held = OneDnnExperts(stack.w13_EHD.shape[0])
    for slot in range(stack.w13_EHD.shape[0]):
        held.put(slot, stored(stack, slot))
    return held


@needs_packing
@examples(40)
@given(
    st.integers(1, 40),
    st.integers(1, 6),
    st.integers(1, 70),
    st.integers(1, 70),
    st.integers(0, 999),
)
def test_packed_experts_round_where_the_gemm_does(
    pairs: int, experts: int, wide: int, inner: int, seed: int
):
    """Three roundings more than the definition, each of half a unit in bfloat16's last place."""
    generator = torch.Generator().manual_seed(seed)
    hidden = noise(9, wide, seed=seed).bfloat16()
    rows = torch.randint(0, 9, (pairs,), generator=generator)
    slots = torch.randint(0, experts, (pairs,), generator=generator)
    weights = torch.rand(pairs, generator=generator)
    stack = held(experts, wide, inner, torch.bfloat16, seed)
    got = packed(stack).rows(hidden, rows, slots, weights)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(
        got, naive_rows(hidden, rows, slots, weights, stack), atol=6e-2, rtol=3e-2
    )


@needs_packing
@pytest.mark.parametrize("sizes", [(48, 80), (256, 64), (129, 33)])
def test_a_packed_row_does_not_depend_on_what_is_computed_with_it(sizes: tuple[int, int]):
    wide, inner = sizes
    held_experts = packed(held(3, wide, inner, torch.bfloat16))
    hidden, rows = noise(40, wide).bfloat16(), torch.arange(40)
    slots, weights = rows % 3, torch.rand(40)
    whole = held_experts.rows(hidden, rows, slots, weights)
    for batch in (1, 2, 3, 7, 16, 33):
        part = slice(5, 5 + batch)
        alone = held_experts.rows(hidden, rows[part], slots[part], weights[part])
        assert torch.equal(alone, whole[part]), batch


def test_sums_add_in_float32_in_ascending_expert_order():
    rows = torch.tensor([[2.0**24], [1.0], [1.0], [-(2.0**24)]])
    order = combine_rows(rows, torch.tensor([0, 0, 0, 0]), 1)
    expected = ((rows[0] + rows[1]) + rows[2]) + rows[3]
    assert order.dtype == torch.float32
    assert torch.equal(order[0], expected)
    halves = combine_rows(torch.full((3, 2), 1.00390625).bfloat16(), torch.tensor([1, 1, 1]), 2)
    assert torch.equal(halves, torch.tensor([[0.0, 0.0], [1.0, 1.0]]).mul(halves[1, 0]))
    assert halves.dtype == torch.float32


def test_an_expert_that_got_no_row_changes_nothing():
    stack = held(5, 12, 10, torch.float32)
    hidden, ids = noise(3, 12), torch.tensor([[0, 3], [0, 3], [3, 4]])
    weights = torch.rand(3, 2)
    used = ExpertWeights(w13_EHD=stack.w13_EHD[[0, 3, 4]], w2_EDF=stack.w2_EDF[[0, 3, 4]])
    renumbered = torch.tensor([[0, 1], [0, 1], [1, 2]])
    torch.testing.assert_close(
        run_experts(hidden, ids, weights, stack), run_experts(hidden, renumbered, weights, used)
    )


blocks = st.sampled_from([(128, 128), (16, 8), (1, 1), (5, 3)])


@examples(80)
@given(st.integers(1, 70), st.integers(1, 70), blocks, st.floats(-30, 30), st.integers(0, 99))
def test_fp8_round_trip_stays_within_half_a_step(
    rows: int, cols: int, block, power: float, seed: int
):
    weights = noise(rows, cols, seed=seed) * 2.0**power
    codes, scales = quantise(weights, *block)
    assert (
        scales.shape
        == scale_shape(rows, cols, *block)
        == (-(-rows // block[0]), -(-cols // block[1]))
    )
    assert not has_nan_codes(codes)
    assert (scales > 0).all()
    back = dequantise(codes, scales, *block)
    spread = expand_scales(scales, rows, cols, *block)
    # E4M3: 3 mantissa bits, so half a step is 1/16 of the value; subnormal steps are 2^-9.
    bound = torch.maximum(weights.abs() / 16, spread * 2.0**-10) * 1.001
    assert ((back - weights).abs() <= bound).all()
    largest = expand_scales(scales, rows, cols, *block) * FP8_MAX
    assert (back.abs() <= largest * 1.0001).all()


@given(st.floats(0, 1e-36, allow_subnormal=True))
def test_blocks_of_zeros_and_of_the_smallest_numbers_have_usable_scales(value: float):
    codes, scales = quantise(torch.full((3, 3), value, dtype=torch.float32), 2, 2)
    assert (scales > 0).all()
    assert not has_nan_codes(codes)
    assert torch.isfinite(dequantise(codes, scales, 2, 2)).all()


def test_every_code_dequantises_to_its_value_and_nans_are_found():
    codes = torch.arange(256, dtype=torch.uint8).view(16, 16).view(torch.float8_e4m3fn)
    assert has_nan_codes(codes)
    finite = codes.view(torch.uint8).flatten()[[i for i in range(256) if i & 0x7F != 0x7F]]
    finite = finite.view(torch.float8_e4m3fn).view(2, 127)
    assert not has_nan_codes(finite)
    scales = torch.tensor([[2.0, 4.0]])
    spread = torch.cat((torch.full((2, 100), 2.0), torch.full((2, 27), 4.0)), dim=1)
    assert torch.equal(dequantise(finite, scales, 128, 100), finite.float() * spread)
