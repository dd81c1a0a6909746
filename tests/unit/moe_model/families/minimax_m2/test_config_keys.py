"""config.json: what is served, and what is refused for which reason."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_model.config import load_generation_defaults
from moe_model.families.known import load_config, parse_config, tensor_names
from moe_model.families.minimax_m2.family import MINIMAX_M2
from moe_model.families.minimax_m2.tiny_config import FP8_CONFIG, TINY
from moe_model.json_files import MAX_CONFIG_BYTES, read_json
from tests.support.moe_model.m2_config import M2


def config(**changes: Any):
    return parse_config({**TINY, **changes})


def without(*keys: str):
    return parse_config({key: value for key, value in TINY.items() if key not in keys})


WIDE = {"hidden_size": 5120, "num_local_experts": 64, "num_experts_per_tok": 2}


def test_m2s_own_sizes_and_others_are_served():
    m2 = config(**M2)
    assert (m2.num_experts, m2.top_k, m2.hidden_size) == (256, 8, 3072)
    assert m2.query_size == 48 * 128 != m2.hidden_size
    assert m2.num_pieces == 62 * 256
    assert m2.expert_params == 3 * 3072 * 1536
    wide = config(**WIDE)
    assert (wide.num_experts, wide.top_k, wide.hidden_size) == (64, 2, 5120)


def test_sizes_that_no_block_divides_are_served():
    odd = config(
        hidden_size=130, intermediate_size=77, num_local_experts=13, quantization_config=FP8_CONFIG
    )
    assert odd.quant.method == "fp8"
    assert (odd.hidden_size, odd.expert_size, odd.num_experts) == (130, 77, 13)


def test_parameter_counts_equal_the_tensor_table():
    shape = config(num_hidden_layers=2)
    total = 0
    for _, spec in tensor_names(shape).every():
        count = 1
        for side in spec.shape:
            count *= side
        total += count
    assert shape.attention_params + shape.num_pieces * shape.expert_params == total
    assert shape.kv_bytes_per_token(4) == 2 * 2 * shape.kv_size * 4


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another model": ({"model_type": "llama"}, "model_type"),
    "no model type": ({"model_type": None}, "model_type"),
    "model type of a list": ({"model_type": ["minimax_m2"]}, "model_type"),
    "heads not shared evenly": ({"num_attention_heads": 3}, "num_heads"),
    "no heads": ({"num_attention_heads": 0}, "num_heads"),
    "odd rotary size": ({"rotary_dim": 7}, "rotary_dim"),
    "rotary beyond the head": ({"rotary_dim": 18}, "rotary_dim"),
    "rotary 0": ({"rotary_dim": 0}, "rotary_dim"),
    "top-k beyond the experts": ({"num_experts_per_tok": 9}, "num_experts_per_tok"),
    "top-k 0": ({"num_experts_per_tok": 0}, "top_k"),
    "no experts": ({"num_local_experts": 0}, "num_experts"),
    "QK-norm per head": ({"qk_norm_type": "per_head"}, "qk_norm_type"),
    "unknown quantisation": ({"quantization_config": {"quant_method": "gptq"}}, "quant_method"),
    "quantisation without method": ({"quantization_config": {"bits": 4}}, "quant_method"),
    "quantisation of a string": ({"quantization_config": "fp8"}, "quantization_config"),
    "E5M2": ({"quantization_config": {**FP8_CONFIG, "fmt": "float8_e5m2"}}, "fmt"),
    "no block size": ({"quantization_config": {"quant_method": "fp8"}}, "weight_block_size"),
    "block size 0": (
        {"quantization_config": {**FP8_CONFIG, "weight_block_size": [0, 128]}},
        "weight_block_size",
    ),
    "one block side": (
        {"quantization_config": {**FP8_CONFIG, "weight_block_size": [128]}},
        "weight_block_size",
    ),
    "softmax scores": ({"scoring_func": "softmax"}, "scoring_func"),
    "another activation": ({"hidden_act": "gelu"}, "hidden_act"),
    "biases": ({"attention_bias": True}, "attention_bias"),
    "tied embeddings": ({"tie_word_embeddings": True}, "tie_word_embeddings"),
    "sliding window": ({"sliding_window": 4096}, "sliding_window"),
    "shared experts": ({"shared_intermediate_size": 64}, "shared"),
    "scaled RoPE": ({"rope_scaling": {"rope_type": "yarn", "factor": 4}}, "rope_scaling"),
    "scaled RoPE of a string": ({"rope_scaling": "yarn"}, "rope_scaling"),
    "RoPE parameters of a list": ({"rope_theta": None, "rope_parameters": [1]}, "rope_parameters"),
    "linear attention": ({"attn_type_list": [1, 0, 1]}, "attn_type_list"),
    "attention types of a number": ({"attn_type_list": 1}, "attn_type_list"),
    "theta 0": ({"rope_theta": 0}, "rope_theta"),
    "theta of text": ({"rope_theta": "big"}, "rope_theta"),
    "theta infinite": ({"rope_theta": float("inf")}, "rope_theta"),
    "eps 0": ({"rms_norm_eps": 0}, "rms_norm_eps"),
    "eps 1": ({"rms_norm_eps": 1.0}, "rms_norm_eps"),
    "unknown dtype": ({"torch_dtype": "int8"}, "dtype"),
    "end token outside": ({"eos_token_id": 320}, "eos_token_id"),
    "end token negative": ({"eos_token_id": [-1]}, "eos_token_id"),
    "end token of text": ({"eos_token_id": "2"}, "eos_token_id"),
    "hidden size of text": ({"hidden_size": "48"}, "hidden_size"),
    "hidden size of a fraction": ({"hidden_size": 48.5}, "hidden_size"),
    "hidden size of a bool": ({"hidden_size": True}, "hidden_size"),
    "hidden size negative": ({"hidden_size": -48}, "hidden_size"),
    "hidden size 2^31": ({"hidden_size": 2**31}, "hidden_size"),
    "more layers than any model": ({"num_hidden_layers": 2**31 - 1}, "num_hidden_layers"),
    "more experts than any model": ({"num_local_experts": 2**31 - 1}, "num_local_experts"),
    "no vocabulary": ({"vocab_size": 0, "eos_token_id": None}, "vocab_size"),
    "partial rotary of text": (
        {"rotary_dim": None, "partial_rotary_factor": "half"},
        "partial_rotary",
    ),
    "partial rotary 0": ({"rotary_dim": None, "partial_rotary_factor": 0}, "partial_rotary"),
    "QK-norm of text": ({"use_qk_norm": "false"}, "use_qk_norm"),
    "routing bias of text": ({"use_routing_bias": "no"}, "use_routing_bias"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_computed_wrongly_is_refused_with_its_key(name: str):
    changes, key = REFUSED[name]
    with pytest.raises(ValueError, match=key) as error:
        config(**changes)
    message = str(error.value)
    assert message.startswith("config.json: ")
    assert "\n" not in message


@pytest.mark.parametrize(
    "key",
    [
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "num_local_experts",
        "num_experts_per_tok",
        "max_position_embeddings",
    ],
)
def test_a_missing_size_is_named(key: str):
    with pytest.raises(ValueError, match=f"{key} is missing"):
        without(key)


def test_missing_optional_keys_have_their_published_defaults():
    served = without("num_key_value_heads", "head_dim", "use_qk_norm", "eos_token_id")
    assert (served.num_kv_heads, served.head_dim) == (4, 12)
    assert served.use_qk_norm
    assert served.eos_token_ids == ()


def test_rotary_size_may_come_as_a_factor_and_theta_as_a_parameter():
    served = config(
        rotary_dim=None,
        rope_theta=None,
        rope_parameters={"rope_theta": 7.0, "partial_rotary_factor": 0.5},
    )
    assert (served.rotary_dim, served.rope_theta) == (8, 7.0)


def test_code_in_the_checkpoint_is_ignored_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        config(auto_map={"AutoModel": "evil.py"})
    assert "auto_map" in caplog.text


def test_unknown_keys_are_ignored():
    assert config(some_future_key={"a": [1]}) == config()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
KEYS = (
    *TINY,
    *("quantization_config", "rope_scaling", "rope_parameters", "attn_type_list"),
    *("sliding_window", "attention_bias", "partial_rotary_factor", "dtype"),
)


@given(st.dictionaries(st.sampled_from(KEYS), json_values, max_size=3))
def test_any_json_in_any_key_is_served_or_refused_in_one_line(changes: dict[str, Any]):
    try:
        served = config(**changes)
    except ValueError as error:
        message = str(error)
    else:
        assert served.top_k <= served.num_experts
        return
    assert message.startswith("config.json: ")
    assert "\n" not in message


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"3", b"\xff\xfe{}", b"[" * 200_000, b"{'a': 1}"]
)
def test_a_file_that_is_no_json_object_is_refused_by_name(tmp_path: Path, content: bytes):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"config\.json"):
        load_config(tmp_path)


def test_missing_and_oversize_files_are_refused_by_name(tmp_path: Path):
    with pytest.raises(ValueError, match=r"config\.json: cannot be read \(No such file"):
        load_config(tmp_path)
    with open(tmp_path / "config.json", "wb") as file:
        file.truncate(MAX_CONFIG_BYTES + 1)
    with pytest.raises(ValueError, match=r"config\.json: larger than the allowed \d+ bytes"):
        read_json(tmp_path / "config.json")


def test_generation_defaults_come_from_their_file(tmp_path: Path):
    family = MINIMAX_M2.generation_defaults
    assert load_generation_defaults(tmp_path, family).top_k == 40
    path = tmp_path / "generation_config.json"
    path.write_text(json.dumps({"temperature": 0.5, "top_p": 0.9, "eos_token_id": [1, 2]}))
    defaults = load_generation_defaults(tmp_path, family)
    assert (defaults.temperature, defaults.top_p, defaults.top_k) == (0.5, 0.9, 0)
    assert defaults.eos_token_ids == (1, 2)
    path.write_text(json.dumps({"do_sample": False, "temperature": 0.5}))
    assert load_generation_defaults(tmp_path, family).temperature == 0.0
    path.write_text(json.dumps({"temperature": "warm"}))
    with pytest.raises(ValueError, match="temperature"):
        load_generation_defaults(tmp_path, family)
