"""`structured_outputs` of a completion: which grammar, and which demands are refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Kind, RequestError
from gateway.limits import Limits
from gateway.shapes.structured_outputs import grammar_of
from tests.support.examples import examples

LIMITS = Limits()


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"a": schema}
    return schema


def json_text(levels: int) -> str:
    return '{"a": ' * levels + "{}" + "}" * levels


def text_of(value, *, thinks=False) -> str:
    text = grammar_of(value, LIMITS, thinks=thinks)
    assert text is not None
    return text


def test_any_text_needs_no_grammar():
    assert grammar_of(None, LIMITS, thinks=False) is None


@pytest.mark.parametrize(
    "value, part",
    [
        ({"choice": ["yes", 'no "way"\n']}, r'form: "yes" | "no \"way\"\n"'),
        ({"regex": r"a/b\/c\\/d"}, r"form: /a\/b\/c\\\/d/"),
        ({"grammar": "start: x", "json": None, "json_object": False}, "start: x"),
        ({"json": '{"type": "integer"}'}, '"type": "integer"'),
        ({"json_object": True}, '"type": "object"'),
    ],
)
def test_each_form_is_a_grammar(value, part):
    assert part in text_of(value)


def test_after_thinking_the_templates_newlines_may_come_first():
    assert "start: form\n" in text_of({"choice": ["a"]})
    assert r"start: /\n{1,2}/? form" in text_of({"choice": ["a"]}, thinks=True)


@pytest.mark.parametrize(
    "value, words",
    [
        ("json", "must be an object"),
        ({}, "exactly one"),
        ({"json": {}, "regex": "a"}, "exactly one"),
        ({"xml": True}, "exactly one"),
        ({"json": "{"}, "structured_outputs.json: not valid JSON"),
        ({"json": 3}, "must be a JSON Schema"),
        ({"json": {"const": "x" * 200_000}}, "at most"),
        ({"regex": ""}, "structured_outputs.regex"),
        ({"regex": "a\nb"}, "one line"),
        ({"choice": []}, "structured_outputs.choice"),
        ({"choice": ["a", ""]}, "structured_outputs.choice"),
        ({"choice": "a"}, "structured_outputs.choice"),
        ({"grammar": 3}, "structured_outputs.grammar"),
        ({"grammar": "x" * 600_000}, "structured_outputs.grammar: at most 524288 characters"),
        (
            {"grammar": "\u6c49" * 300_000},
            "structured_outputs.grammar: its grammar has 900000 bytes",
        ),
        ({"grammar": "start: \ud800"}, "valid Unicode"),
        ({"regex": "a" * 40_000}, "structured_outputs.regex: at most 32768 characters"),
        ({"choice": ["x" * 300_000] * 3}, "structured_outputs.choice: at most 524288 bytes"),
        ({"choice": ["x"] * 1001}, "1 to 1000"),
        ({"json": nested(33)}, "structured_outputs.json: nested deeper than 32"),
        ({"json": nested(20_000)}, "structured_outputs.json: cannot be written as JSON"),
        ({"json": json_text(33)}, "structured_outputs.json: nested deeper than 32"),
        ({"json": json_text(300)}, "structured_outputs.json: not valid JSON: nested deeper"),
        ({"json": json_text(10_000)}, "structured_outputs.json: not valid JSON: nested deeper"),
        ({"json": '{"type": "object", "type": "string"}'}, "duplicate key 'type'"),
        ({"json": '{"minimum": 1' + "0" * 50 + "}"}, "structured_outputs.json: not valid JSON"),
        ({"json": '{"a": "\ud800"}'}, "structured_outputs.json: not valid JSON"),
        ({"json": {"a": object()}}, "structured_outputs.json: cannot be written as JSON"),
    ],
)
def test_bad_demands_name_the_form(value, words):
    with pytest.raises(RequestError, match=words) as caught:
        grammar_of(value, LIMITS, thinks=False)
    assert caught.value.kind is Kind.INVALID_REQUEST


@examples(200)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
        max_leaves=12,
    ),
    st.sampled_from(["json", "json_object", "regex", "choice", "grammar"]),
    st.booleans(),
)
def test_any_demand_is_a_grammar_or_a_400(demand: Any, form: str, thinks: bool):
    for value in (demand, json.dumps(demand)):
        try:
            text = grammar_of({form: value}, LIMITS, thinks=thinks)
        except RequestError as error:
            outcome = (error.kind, (error.field or "").partition(".")[0])
        else:
            outcome = (200, "structured_outputs" if text else "")
        assert outcome in (
            (200, "structured_outputs"),
            (Kind.INVALID_REQUEST, "structured_outputs"),
        )
