"""The native row functions against their torch versions, row by row, and against bad buffers."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from moe_model.backends.choice import choose_backend
from moe_model.kernels.cpu import library
from moe_model.kernels.cpu.rows import NativeRows
from moe_model.maths.rope import rope_cos_sin, rope_frequencies
from moe_model.maths.row_maths import TORCH

pytestmark = pytest.mark.skipif(library.load() is None, reason="no native kernels here")
EPS = 1e-6
native = NativeRows()
SIZES = [(1, 1), (1, 31), (3, 33), (9, 160), (40, 3072)]
"""Rows, numbers: fewer than, and not a multiple of, what is summed at once; few rows and many."""


@pytest.fixture(params=["avx512", "avx2"], autouse=True)
def _each_isa(request: pytest.FixtureRequest) -> Iterator[None]:
    held = library.need()
    if request.param not in held.native.isas():
        pytest.skip(f"this CPU has no {request.param}")
    held.native.use_isa(request.param)
    yield
    held.native.use_isa(held.isa)


def _random(*shape: int, scale: float = 1.0) -> Tensor:
    seed = sum(size * 31**i for i, size in enumerate(shape))
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def _is_rounded(found: Tensor, exact: Tensor) -> None:
    """bfloat16, at most a float32 error away from the nearest to `exact`."""
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), exact, rtol=2**-8 + 1e-5, atol=1e-30)


def _norm(hidden: Tensor, weight: Tensor) -> Tensor:
    wide = hidden.double()
    return wide / (wide.square().mean(-1, keepdim=True) + EPS).sqrt() * weight.double()


@pytest.mark.parametrize("scale", [1e-18, 1.0, 1e15])
@pytest.mark.parametrize(("num_rows", "size"), SIZES)
def test_a_norm_is_the_exact_one_rounded_once(num_rows: int, size: int, scale: float):
    hidden, weight = _random(num_rows, size, scale=scale).bfloat16(), _random(size).bfloat16()
    _is_rounded(native.rms_norm(hidden, weight, EPS), _norm(hidden, weight))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("num_rows", "size"), SIZES)
def test_what_is_added_is_rounded_as_torch_rounds(num_rows: int, size: int, dtype: torch.dtype):
    residual, added = _random(num_rows, size).bfloat16(), _random(num_rows, size, scale=3).to(dtype)
    weight = _random(size).bfloat16()
    expected = TORCH.add_rounded(residual, added)
    assert torch.equal(native.add_rounded(residual, added), expected)
    total, normed = native.add_rms_norm(residual, added, weight, EPS)
    assert torch.equal(total, expected)
    assert torch.equal(normed, native.rms_norm(total, weight, EPS))


@pytest.mark.parametrize("has_norms", [True, False])
@pytest.mark.parametrize(
    ("num_rows", "heads", "groups", "head_dim", "rotary"),
    [(1, 48, 8, 128, 64), (5, 3, 1, 10, 6), (17, 4, 2, 16, 16), (2, 1, 1, 2, 2)],
)
def test_heads_are_normed_then_rotated(
    num_rows: int, heads: int, groups: int, head_dim: int, rotary: int, has_norms: bool
):
    qkv = _random(num_rows, (heads + 2 * groups) * head_dim).bfloat16()
    norms = (_random(heads * head_dim).bfloat16(), _random(groups * head_dim).bfloat16())
    cos, sin = rope_cos_sin(torch.arange(num_rows) * 97, rope_frequencies(rotary, 1e4))
    given = (heads, groups, norms if has_norms else None, EPS, cos, sin)
    q, k, v = native.split_heads(qkv, *given)
    for found, expected in zip((q, k, v), TORCH.split_heads(qkv, *given), strict=True):
        assert found.shape == expected.shape
        # The norm's sum may differ in its last bits, and so its rounding by one bfloat16 step.
        torch.testing.assert_close(found.float(), expected.float(), rtol=2**-6, atol=2**-6)
    if not has_norms:  # nothing but products and sums: the same bits
        assert torch.equal(q, TORCH.split_heads(qkv, *given)[0])


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize(
    ("num_rows", "experts", "top_k"), [(1, 32, 8), (50, 256, 8), (3, 7, 7), (9, 5, 1)]
)
def test_experts_are_those_that_torch_chooses(
    num_rows: int, experts: int, top_k: int, has_bias: bool
):
    # Quarters: many equal scores, none so close that the last bit of a sigmoid decides.
    logits = (_random(num_rows, experts, scale=4) * 4).round() / 4
    bias = (_random(experts) * 4).round() / 4 if has_bias else None
    ids, weights = native.choose_experts(logits, bias, top_k)
    expected_ids, expected = TORCH.choose_experts(logits, bias, top_k)
    assert ids.dtype == torch.int32
    assert torch.equal(ids, expected_ids)
    torch.testing.assert_close(weights, expected, rtol=1e-6, atol=0)


def test_infinities_and_nan_are_chosen_as_torch_chooses_them():
    logits = torch.tensor([[0.0, float("nan"), 3.0, float("inf"), float("-inf"), float("nan")]])
    for top_k in (1, 2, 3, 6):
        ids, weights = native.choose_experts(logits, None, top_k)
        expected_ids, expected = TORCH.choose_experts(logits, None, top_k)
        assert torch.equal(ids, expected_ids)
        assert torch.equal(weights.isnan(), expected.isnan())


def test_nan_stays_in_its_row():
    hidden, weight = _random(3, 64).bfloat16(), torch.ones(64).bfloat16()
    hidden[1, 5] = float("nan")
    assert native.rms_norm(hidden, weight, EPS).isnan().any(-1).tolist() == [False, True, False]


def test_a_row_has_the_same_bits_alone_and_among_others():
    hidden, weight = _random(300, 96).bfloat16(), _random(96).bfloat16()
    logits = _random(300, 40)
    cos, sin = rope_cos_sin(torch.arange(300), rope_frequencies(8, 1e4))

    def outputs(rows: slice) -> list[Tensor]:
        heads = native.split_heads(
            hidden[rows], 4, 1, (weight[:64], weight[64:80]), EPS, cos[rows], sin[rows]
        )
        normed = native.add_rms_norm(hidden[rows], hidden[rows] * 3, weight, EPS)
        return [*heads, *normed, *native.choose_experts(logits[rows], None, 3)]

    together = outputs(slice(None))
    for row in (0, 7, 299):
        for one, all_rows in zip(outputs(slice(row, row + 1)), together, strict=True):
            assert torch.equal(one[0], all_rows[row])


def test_no_rows_give_no_rows():
    none = torch.empty((0, 8), dtype=torch.bfloat16)
    assert native.rms_norm(none, torch.ones(8).bfloat16(), EPS).shape == (0, 8)
    assert native.choose_experts(torch.empty((0, 8)), None, 2)[0].shape == (0, 2)


def test_what_does_not_fit_is_refused_by_name():
    rows, weight = torch.zeros(2, 8).bfloat16(), torch.ones(8).bfloat16()
    cos = torch.zeros(2, 1)
    cases = {
        "hidden": lambda: native.rms_norm(rows.float(), weight, EPS),
        "weight": lambda: native.rms_norm(rows, weight[:7], EPS),
        "residual": lambda: native.add_rounded(rows[0], rows),
        "added must be": lambda: native.add_rounded(rows, rows[:1]),
        "added": lambda: native.add_rounded(rows, rows.double()),
        "qkv": lambda: native.split_heads(rows, 3, 1, None, EPS, cos, cos),
        "cos and sin": lambda: native.split_heads(rows, 2, 1, None, EPS, cos[:1], cos[:1]),
        "at most 1": lambda: native.split_heads(
            rows, 2, 1, None, EPS, torch.zeros(2, 2), torch.zeros(2, 2)
        ),
        "q_norm": lambda: native.split_heads(rows, 2, 1, (weight, weight[:2]), EPS, cos, cos),
        "k_norm": lambda: native.split_heads(rows, 2, 1, (weight[:4], weight), EPS, cos, cos),
        "logits": lambda: native.choose_experts(rows, None, 2),
        "bias": lambda: native.choose_experts(rows.float(), torch.zeros(7), 2),
        "top_k": lambda: native.choose_experts(rows.float(), None, 9),
    }
    for words, call in cases.items():
        with pytest.raises(ValueError, match=words):
            call()


def test_other_dtypes_and_devices_stay_with_torch():
    assert isinstance(choose_backend(torch.bfloat16).rows, NativeRows)
    assert choose_backend(torch.float32).rows is TORCH
    assert choose_backend(torch.bfloat16, "meta").rows is TORCH
