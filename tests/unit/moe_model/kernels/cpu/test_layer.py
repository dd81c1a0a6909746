"""A layer's attention block in two native calls: the bits of the same functions one by one."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from moe_model.backends.choice import choose_backend
from moe_model.config import ModelConfig
from moe_model.families.known import parse_config
from moe_model.families.minimax_m2.tiny_config import TINY
from moe_model.kernels.cpu import library
from moe_model.kernels.cpu.layer import NativeLayer, hold_layer
from moe_model.kernels.cpu.rows import NativeRows
from moe_model.maths.layer import LayerWeights, PlainLayer
from moe_model.maths.rope import rope_cos_sin, rope_frequencies
from tests.support.moe_model.float_packing import pack

pytestmark = pytest.mark.skipif(library.load() is None, reason="no native kernels here")
ODD = {
    "hidden_size": 50,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "head_dim": 10,
    "rotary_dim": 6,
    "num_local_experts": 7,
    "num_experts_per_tok": 3,
}


def _random(*shape: int) -> Tensor:
    seed = sum(size * 31**i for i, size in enumerate(shape))
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _weights(config: ModelConfig, weight_format: str, bare: bool) -> LayerWeights:
    d, q, kv, e = config.hidden_size, config.query_size, config.kv_size, config.num_experts
    return LayerWeights(
        input_norm_D=_random(d).bfloat16(),
        qkv_AD=pack(_random(q + 2 * kv, d) / d**0.5, weight_format),
        q_norm=None if bare else _random(q).bfloat16(),
        k_norm=None if bare else _random(kv).bfloat16(),
        o_DA=pack(_random(d, q) / q**0.5, weight_format),
        post_norm_D=_random(d + 1)[1:].bfloat16(),
        routing_ED=pack(_random(e, d), "f32"),
        bias_E=None if bare else _random(e),
    )


def _given(config: ModelConfig, num_rows: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hidden rows, what attention gave for them, cosines, sines."""
    cos_T, sin_T = rope_cos_sin(
        torch.arange(num_rows) * 5, rope_frequencies(config.rotary_dim, config.rope_theta)
    )
    hidden_TD = _random(num_rows, config.hidden_size).bfloat16()
    return hidden_TD, _random(num_rows, config.query_size).bfloat16(), cos_T, sin_T


@pytest.mark.parametrize("bare", [False, True], ids=["all", "no norms, no bias"])
@pytest.mark.parametrize("weight_format", ["bf16", "int8"])
@pytest.mark.parametrize("num_rows", [1, 4, 21])
@pytest.mark.parametrize("sizes", [{}, ODD], ids=["tiny", "odd"])
def test_two_calls_give_the_bits_of_many(
    sizes: dict[str, Any], num_rows: int, weight_format: str, bare: bool
):
    config = parse_config({**TINY, **sizes})
    weights = _weights(config, weight_format, bare)
    fused, plain = (
        hold_layer(weights, config),
        PlainLayer(weights, config, NativeRows()),
    )
    assert isinstance(fused, NativeLayer)
    hidden_TD, attended_TA, cos_T, sin_T = _given(config, num_rows)
    found = (*fused.project(hidden_TD, cos_T, sin_T), *fused.dispatch(hidden_TD, attended_TA))
    expected = (*plain.project(hidden_TD, cos_T, sin_T), *plain.dispatch(hidden_TD, attended_TA))
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


def test_what_has_no_native_kernel_is_done_step_by_step():
    config = parse_config(TINY)
    weights = _weights(config, "bf16", bare=False)
    assert isinstance(choose_backend(torch.float32).hold_layer(weights, config), PlainLayer)
    torch_routing = dataclasses.replace(weights, routing_ED=_random(8, 48))
    assert isinstance(hold_layer(torch_routing, config), PlainLayer)


def test_rows_that_do_not_fit_are_refused_by_name():
    config = parse_config(TINY)
    layer = hold_layer(_weights(config, "bf16", bare=False), config)
    hidden, attended, cos, sin = _given(config, 2)
    cases = {
        "hidden": lambda: layer.project(hidden[:, 1:], cos, sin),
        "cos and sin": lambda: layer.project(hidden, cos[:1], sin[:1]),
        "at most 8": lambda: layer.project(hidden, torch.zeros(2, 9), torch.zeros(2, 9)),
        "sin must": lambda: layer.project(hidden, cos, sin[:, 1:]),
        "attended must be": lambda: layer.dispatch(hidden, attended[:, 1:]),
        "attended must have": lambda: layer.dispatch(hidden, attended[:1]),
    }
    for words, call in cases.items():
        with pytest.raises(ValueError, match=words):
            call()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"qkv_AD": pack(torch.zeros(64, 48), "bf16")}, "qkv must be"),
        ({"o_DA": pack(torch.zeros(48, 48), "f32")}, "o must be"),
        ({"routing_ED": pack(torch.zeros(8, 40), "f32")}, "routing must be"),
        ({"routing_ED": pack(torch.zeros(1, 48), "f32")}, "top_k"),
        ({"post_norm_D": torch.zeros(47).bfloat16()}, "post_norm"),
        ({"q_norm": torch.zeros(64)}, "q_norm"),
        ({"bias_E": torch.zeros(9)}, "bias"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(change: dict[str, Any], words: str):
    config = parse_config(TINY)
    weights = dataclasses.replace(_weights(config, "bf16", bare=False), **change)
    with pytest.raises(ValueError, match=words):
        hold_layer(weights, config)
