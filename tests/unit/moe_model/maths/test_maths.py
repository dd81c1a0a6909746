"""The model's functions against float64 and naive loops."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import moe_model.maths.attention as attention_module
from moe_model.maths.attention import attend
from moe_model.maths.linear import can_pack, linear, pack
from moe_model.maths.norm import rms_norm
from moe_model.maths.rope import apply_rope, rope_cos_sin, rope_frequencies
from moe_model.maths.routing import route
from tests.support.examples import examples

seeds = st.integers(0, 10_000)


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@given(st.integers(1, 5), st.integers(1, 300), st.sampled_from([1e-6, 1e-5]), seeds)
def test_rms_norm_is_the_float64_formula(rows: int, width: int, eps: float, seed: int):
    hidden, weight = noise(rows, width, seed=seed), noise(width, seed=seed + 1)
    wide = hidden.double()
    expected = wide / (wide.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight.double()
    torch.testing.assert_close(
        rms_norm(hidden, weight, eps).double(), expected, atol=1e-5, rtol=1e-5
    )


def test_rms_norm_rounds_once_in_bfloat16():
    hidden, weight = noise(4, 96, dtype=torch.bfloat16), noise(96, seed=1, dtype=torch.bfloat16)
    expected = rms_norm(hidden.float(), weight.float(), 1e-6).bfloat16()
    assert torch.equal(rms_norm(hidden, weight, 1e-6), expected)


def test_rms_norm_of_zeros_and_of_huge_rows_is_finite():
    assert torch.equal(rms_norm(torch.zeros(2, 8), torch.ones(8), 1e-6), torch.zeros(2, 8))
    assert torch.isfinite(rms_norm(torch.full((1, 8), 1e18), torch.ones(8), 1e-6)).all()


@examples(50)
@given(st.integers(1, 4), st.sampled_from([(8, 8), (8, 4), (16, 6), (4, 2)]), seeds)
def test_rope_turns_half_split_pairs_by_position_times_frequency(heads: int, sizes, seed: int):
    head_dim, rotary_dim = sizes
    positions = torch.tensor([0, 1, 5, 1000])
    x = noise(4, heads, head_dim, seed=seed)
    cos, sin = rope_cos_sin(positions, rope_frequencies(rotary_dim, 10_000.0))
    y = apply_rope(x, cos, sin)
    half = rotary_dim // 2
    for t, position in enumerate(positions.tolist()):
        for i in range(half):
            angle = position * 10_000.0 ** (-2 * i / rotary_dim)
            a, b = x[t, :, i].double(), x[t, :, i + half].double()
            turned = a * math.cos(angle) - b * math.sin(angle)
            torch.testing.assert_close(y[t, :, i].double(), turned, atol=3e-4, rtol=1e-4)
            turned = b * math.cos(angle) + a * math.sin(angle)
            torch.testing.assert_close(y[t, :, i + half].double(), turned, atol=3e-4, rtol=1e-4)
    assert torch.equal(y[..., rotary_dim:], x[..., rotary_dim:])
    assert torch.equal(y[0], x[0])  # position 0


def test_rope_scores_depend_on_the_distance_only():
    q, k = noise(1, 1, 16), noise(1, 1, 16, seed=1)
    frequencies = rope_frequencies(8, 5e6)

    def score(at: int, other: int) -> torch.Tensor:
        turned = [
            apply_rope(x, *rope_cos_sin(torch.tensor([p]), frequencies))
            for x, p in ((q, at), (k, other))
        ]
        return (turned[0] * turned[1]).sum()

    torch.testing.assert_close(score(3, 1), score(103, 101), atol=1e-4, rtol=1e-4)


@examples(50)
@given(st.integers(1, 6), st.integers(1, 12), st.integers(1, 12), seeds)
def test_routing_is_the_naive_choice_of_biased_scores(rows: int, experts: int, top: int, seed: int):
    top = min(top, experts)
    hidden, gate, bias = (
        noise(rows, 10, seed=seed),
        noise(experts, 10, seed=seed + 1),
        noise(experts, seed=seed + 2),
    )
    ids, weights = route(hidden, gate, bias, top)
    for t in range(rows):
        scores = torch.sigmoid(hidden[t].double() @ gate.double().t())
        biased = (scores + bias.double()).tolist()
        chosen = sorted(sorted(range(experts), key=lambda e: (-biased[e], e))[:top])
        assert ids[t].tolist() == chosen
        expected = scores[chosen] / scores[chosen].sum()
        torch.testing.assert_close(weights[t].double(), expected, atol=1e-6, rtol=1e-5)


def test_equal_scores_go_to_the_lower_ids():
    hidden = torch.zeros(3, 4)
    ids, weights = route(hidden, noise(64, 4), None, 5)  # every score is sigmoid(0)
    assert ids.tolist() == [[0, 1, 2, 3, 4]] * 3
    assert torch.equal(weights, torch.full((3, 5), 0.2))
    bias = torch.zeros(64)
    bias[[7, 33, 50, 51]] = 1.0
    assert route(hidden, noise(64, 4), bias, 5)[0].tolist() == [[0, 7, 33, 50, 51]] * 3


def test_the_bias_chooses_but_does_not_weigh():
    hidden, gate = noise(5, 6), noise(8, 6, seed=1)
    bias = torch.zeros(8)
    bias[2] = 100.0
    ids, weights = route(hidden, gate, bias, 2)
    assert (ids == 2).any(dim=1).all()
    assert (weights < 1).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(5))


def naive_attention(q, k, v, positions) -> torch.Tensor:
    """Head by head, position by position, in float64."""
    rows, heads, width = q.shape
    per_group = heads // k.shape[1]
    out = torch.zeros(rows, heads, width, dtype=torch.float64)
    for t in range(rows):
        for h in range(heads):
            seen = int(positions[t]) + 1
            keys, values = k[:seen, h // per_group].double(), v[:seen, h // per_group].double()
            scores = keys @ q[t, h].double() / math.sqrt(width)
            out[t, h] = torch.softmax(scores, 0) @ values
    return out.view(rows, heads * width)


@examples(40)
@given(
    st.integers(1, 6), st.integers(1, 20), st.sampled_from([(1, 1), (4, 2), (6, 2), (3, 3)]), seeds
)
def test_attention_is_the_naive_loop(rows: int, cached: int, heads: tuple[int, int], seed: int):
    rows = min(rows, cached)
    q = noise(rows, heads[0], 8, seed=seed)
    k, v = noise(cached, heads[1], 8, seed=seed + 1), noise(cached, heads[1], 8, seed=seed + 2)
    positions = torch.arange(cached - rows, cached)
    expected = naive_attention(q, k, v, positions)
    torch.testing.assert_close(attend(q, k, v, positions).double(), expected, atol=1e-5, rtol=1e-4)
    # What lies beyond a row's position is never seen.
    k[-1] = v[-1] = 99.0
    changed = attend(q, k, v, positions)
    torch.testing.assert_close(changed[:-1].double(), expected[:-1], atol=1e-5, rtol=1e-4)


def test_attention_in_tiles_is_attention_in_one(monkeypatch):
    q, k, v = noise(13, 4, 8), noise(20, 2, 8, seed=1), noise(20, 2, 8, seed=2)
    positions = torch.arange(7, 20)
    whole = attend(q, k, v, positions)
    for scores in (1, 4 * 20 * 3, 4 * 20 * 13):
        monkeypatch.setattr(attention_module, "QUERY_TILE_SCORES", scores)
        torch.testing.assert_close(attend(q, k, v, positions), whole, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("sizes", [(48, 80), (256, 64), (129, 33), (512, 96)])
def test_a_bfloat16_row_does_not_depend_on_its_batch(sizes: tuple[int, int]):
    wide, out = sizes
    rows, weight = (
        noise(40, wide, dtype=torch.bfloat16),
        noise(out, wide, seed=1, dtype=torch.bfloat16),
    )
    whole = linear(rows, weight)
    for batch in (1, 2, 3, 7, 16, 33):
        for start in (0, 5):
            part = linear(rows[start : start + batch], weight)
            assert torch.equal(part, whole[start : start + batch]), (batch, start)


@pytest.mark.skipif(not can_pack(torch.bfloat16, "cpu"), reason="no packed weights in this torch")
@pytest.mark.parametrize("sizes", [(48, 80), (256, 64), (129, 33), (512, 96)])
def test_a_packed_weight_gives_the_bits_of_the_plain_one(sizes: tuple[int, int]):
    wide, out = sizes
    rows, weight = (
        noise(40, wide, dtype=torch.bfloat16),
        noise(out, wide, seed=1, dtype=torch.bfloat16),
    )
    ready = pack(weight)
    assert ready.is_mkldnn
    assert pack(ready) is ready
    for batch in (0, 1, 2, 4, 5, 6, 17, 40):
        assert torch.equal(linear(rows[:batch], ready), linear(rows[:batch], weight)), batch


def test_only_bfloat16_on_a_cpu_is_packed():
    assert pack(noise(4, 4)).layout == torch.strided
    assert not can_pack(torch.bfloat16, "cuda")


def test_linear_is_a_matrix_product():
    rows, weight = noise(5, 7), noise(3, 7, seed=1)
    torch.testing.assert_close(linear(rows, weight), rows @ weight.t())
    assert linear(rows[:0], weight).shape == (0, 3)
