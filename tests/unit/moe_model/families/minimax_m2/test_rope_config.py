"""The rotation that config.json asks for is the one computed, or the model is refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_model.config import ModelConfig
from moe_model.families.known import load_config, parse_config
from moe_model.families.minimax_m2.tiny_config import TINY
from tests.support.places import DEMO_MODEL

THETA = 5_000_000.0
YARN = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 8192,
    "rope_theta": THETA,
}
PLAIN = {"rope_type": "default", "rope_theta": THETA, "partial_rotary_factor": 0.5}
M2 = {"head_dim": 128, "rotary_dim": 64, "rope_theta": THETA}


def config(**rope: Any) -> ModelConfig:
    """A head of 128 numbers, and of the rotation only these keys."""
    sizes = {k: v for k, v in TINY.items() if "rope" not in k and "rotary" not in k}
    return parse_config({**sizes, "head_dim": 128, **rope})


@pytest.mark.parametrize(
    "rope",
    [
        M2,
        {**M2, "rope_scaling": None},
        {**M2, "rope_scaling": {}},
        {**M2, "rope_scaling": {"type": "default"}},
        {**M2, "rope_scaling": {"rope_type": "default", "factor": 1.0}},
        {**M2, "partial_rotary_factor": 0.5},
        {**M2, "rope_parameters": PLAIN},
        {"rope_parameters": PLAIN},
        {"rope_theta": THETA, "partial_rotary_factor": 0.5},
        {"rotary_dim": 64, "rope_parameters": {"rope_theta": THETA, "rope_type": None}},
        {"rope_parameters": {"full_attention": PLAIN}},
        {"rope_parameters": {"full_attention": PLAIN, "other_attention": PLAIN}},
    ],
    ids=str,
)
def test_the_plain_rotation_is_served_however_it_is_written(rope: dict[str, Any]):
    served = config(**rope)
    assert (served.rotary_dim, served.rope_theta) == (64, THETA)


def test_the_demonstration_model_is_served():
    written = json.loads((DEMO_MODEL / "config.json").read_text())
    served = load_config(DEMO_MODEL)
    assert served.rotary_dim == written["rotary_dim"]
    assert served.rope_theta == written["rope_theta"]


KINDS = (
    "yarn",
    "linear",
    "dynamic",
    "llama3",
    "longrope",
    "mrope",
    "proportional",
    "",
    3,
    ["yarn"],
)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("key", ["rope_type", "type"])
@pytest.mark.parametrize("table", ["rope_scaling", "rope_parameters"])
@pytest.mark.parametrize("nested", [False, True])
def test_no_other_kind_is_served_wherever_it_stands(kind: Any, key: str, table: str, nested: bool):
    rope: dict[str, Any] = {key: kind, "factor": 4.0, "rope_theta": THETA}
    written = {table: {"full_attention": PLAIN, "other": rope} if nested else rope}
    with pytest.raises(ValueError, match=rf"config.json: {table}"):
        config(**M2, **written)


@pytest.mark.parametrize(
    ("rope", "named"),
    [
        ({"rotary_dim": 64}, "rope_theta is missing"),
        ({"rotary_dim": 64, "rope_theta": None}, "rope_theta is missing"),
        ({"rope_theta": THETA}, "rotary_dim is missing"),
        ({"rope_parameters": {"full_attention": {"rope_theta": THETA}}}, "rotary_dim is missing"),
        ({**M2, "partial_rotary_factor": 0.25}, "contradict"),
        ({**M2, "partial_rotary_factor": 1.0}, "contradict"),
        ({**M2, "rope_parameters": {"partial_rotary_factor": 1}}, "contradict"),
        ({**M2, "rope_parameters": {"rope_theta": 10_000.0}}, "contradict"),
        ({**M2, "rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "contradict"),
        (
            {"rope_parameters": {"a": PLAIN, "b": {**PLAIN, "rope_theta": 1e4}}},
            r"rope_parameters.a.rope_theta 5e\+06 and rope_parameters.b.rope_theta 10000",
        ),
        ({**M2, "rope_scaling": {"factor": 4.0}}, "rope_scaling: factor 4.0"),
        ({**M2, "rope_scaling": {"type": "default", "mrope_section": [16]}}, "mrope_section"),
        ({**M2, "rope_parameters": {"a": {"b": YARN}}}, "rope_parameters.a: b"),
        ({**M2, "rope_local_base_freq": 1e4}, "rope_local_base_freq"),
        ({**M2, "rope_interleave": True}, "rope_interleave"),
        ({**M2, "rotary_pct": 0.25}, "rotary_pct"),
        ({**M2, "no_rope_layers": [3]}, "no_rope_layers"),
        ({**M2, "rope_theta": 10**400}, "rope_theta must be a finite number"),
        ({**M2, "rope_parameters": {"rope_theta": "big"}}, "rope_parameters.rope_theta must be"),
        ({**M2, "rope_parameters": {"partial_rotary_factor": 2}}, "rope_parameters.partial_rotary"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_is_missing_contradicts_itself_or_is_unknown_is_refused(
    rope: dict[str, Any], named: str
):
    with pytest.raises(ValueError, match=named):
        config(**rope)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.integers()
    | st.sampled_from([*KINDS[:4], "default"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from([*YARN, "type", "partial_rotary_factor", "full_attention"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
KEYS = ["rope_scaling", "rope_parameters", "rope_theta", "rotary_dim", "partial_rotary_factor"]


@given(st.dictionaries(st.sampled_from(KEYS), json_values, max_size=3))
def test_whatever_is_written_the_rotation_is_known_or_refused_in_one_line(rope: dict[str, Any]):
    refused = ""
    try:
        served = config(**{**M2, **rope})
    except ValueError as error:
        refused = str(error)
    if refused:
        assert refused.startswith("config.json: ")
        assert "\n" not in refused
        return
    text = json.dumps(rope)
    assert not any(kind in text for kind in ("yarn", "linear", "dynamic", "llama3"))
    thetas = {THETA, rope.get("rope_theta")} if "rope_theta" in rope else {THETA}
    assert served.rope_theta in thetas or "rope_theta" in text
