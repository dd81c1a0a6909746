"""From raw parameter text to JSON values, by the tool's schema."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_model.chat.schema_types import to_json_text
from moe_model.chat.tool_schema import parameter_types
from tests.support.examples import examples


def value(text: str, schema: Any) -> Any:
    types = parameter_types({"type": "object", "properties": {"p": schema}}, "p")
    return json.loads(to_json_text(text, types))


@pytest.mark.parametrize("text", ["5", "null", "true", "1.5", "[1]", "{}", " x ", "", "NaN"])
@pytest.mark.parametrize(
    "schema", [{"type": "string"}, {"type": "varchar"}, {"enum": ["a", "b"]}, {}, None, 7]
)
def test_strings_stay_strings(text: str, schema: Any) -> None:
    assert value(text, schema) == text


@pytest.mark.parametrize(
    ("text", "schema", "expected"),
    [
        ("5", {"type": "integer"}, 5),
        (" -5 ", {"type": "int64"}, -5),
        ("+007", {"type": "uint8"}, 7),
        ("5.0", {"type": "integer"}, 5.0),  # falls through to any JSON
        ("five", {"type": "integer"}, "five"),
        ("1_000", {"type": "integer"}, "1_000"),
        ("9" * 5000, {"type": "integer"}, "9" * 5000),
        ("5.0", {"type": "number"}, 5),
        ("0.1", {"type": "double"}, 0.1),
        ("1e400", {"type": "number"}, "1e400"),
        ("inf", {"type": "number"}, "inf"),
        ("nan", {"type": "float"}, "nan"),
        ("NaN", {"type": "number"}, "NaN"),
        ("TRUE", {"type": "boolean"}, True),
        ("0", {"type": "bool"}, False),
        ("yes", {"type": "boolean"}, "yes"),
        ("null", {"type": ["string", "null"]}, None),
        ("Null", {"type": ["string", "null"]}, None),
        ("null", {"type": "string"}, "null"),
        ("none", {"type": ["string", "null"]}, "none"),
        ("1", {"type": ["boolean", "integer"]}, 1),
        ("5", {"type": ["string", "integer"]}, 5),
        ("x", {"type": ["string", "integer"]}, "x"),
        ('{"a": [1, "ü"]}', {"type": "object"}, {"a": [1, "ü"]}),
        ("{'a': 1}", {"type": "dict"}, "{'a': 1}"),
        ('"{\\"a\\": 1}"', {"type": "object"}, {"a": 1}),
        ('"[1, 2]"', {"type": "array"}, [1, 2]),
        ('"5"', {"type": "integer"}, 5),
        ('"true"', {"type": "boolean"}, True),
        ('"{\\"a\\": 1}"', {"type": ["object", "string"]}, '"{\\"a\\": 1}"'),
        ('"plain"', {"type": "object"}, "plain"),
        ('{"a": "x\ny"}', {"type": "object"}, {"a": "x\ny"}),
        ('{"a": "\\ud83d", "\\udc00": 1}', {"type": "object"}, {"a": "\ufffd", "\ufffd": 1}),
        ('"\\ud83d"', {"type": "object"}, "\ufffd"),
        ('{"a": ' + "9" * 5000 + "}", {"type": "object"}, '{"a": ' + "9" * 5000 + "}"),
        ("[1, 2]", {"type": "list[int]"}, [1, 2]),
        ("[NaN]", {"type": "array"}, "[NaN]"),
        ("[" * 100_000, {"type": "array"}, "[" * 100_000),
        ("5", {"type": ["object", "string"]}, "5"),
        ("5", {"type": "object"}, 5),
        ("2", {"enum": [1, 2, 3]}, 2),
        ("2", {"const": 2}, 2),
        ("5", {"anyOf": [{"type": "null"}, {"oneOf": [{"type": "integer"}]}]}, 5),
        ("null", {"anyOf": [{"type": "null"}, {"type": "integer"}]}, None),
        ("hi", {"anyOf": [{"type": "string"}, {"type": "null"}]}, "hi"),
    ],
)
def test_values_follow_the_schema(text: str, schema: Any, expected: Any) -> None:
    result = value(text, schema)
    assert result == expected
    assert type(result) is type(expected)


def test_local_references_and_additional_properties_are_followed() -> None:
    parameters = {
        "properties": {"a": {"$ref": "#/$defs/Count"}, "b": {"$ref": "https://x/y"}},
        "$defs": {"Count": {"type": "integer"}},
        "additionalProperties": {"type": "boolean"},
    }
    assert parameter_types(parameters, "a") == {"integer"}
    assert parameter_types(parameters, "b") == {"string"}
    assert parameter_types(parameters, "c") == {"boolean"}


def test_endless_schemas_end() -> None:
    loop: dict[str, Any] = {"anyOf": [{"$ref": "#/properties/p"}, {"type": "integer"}] * 3}
    assert "integer" in parameter_types({"properties": {"p": loop}}, "p")
    deep: dict[str, Any] = {"type": "integer"}
    for _ in range(5000):
        deep = {"allOf": [deep]}
    assert parameter_types({"properties": {"p": deep}}, "p") == {"string"}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "enum", "anyOf", "allOf", "$ref", "const", "properties", "p"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)
TYPES = ["null", "integer", "number", "boolean", "object", "array", "string"]


@examples(300)
@given(schema=json_values, text=st.text(max_size=20) | json_values.map(str))
def test_no_schema_and_no_text_raises(schema: Any, text: str) -> None:
    for parameters in (schema, {"properties": {"p": schema}}):
        json.loads(to_json_text(text, parameter_types(parameters, "p")), parse_constant=pytest.fail)


@examples(300)
@given(
    text=st.text(alphabet='0123456789.eE+-[]{}",:tfnul NaIity\\', max_size=12)
    | st.from_regex(r'\{"(\\u[de][89a-f][0-9a-f]{2}|a)": "(\\u[de][89a-f][0-9a-f]{2})*"\}'),
    types=st.frozensets(st.sampled_from(TYPES), min_size=1),
)
def test_the_result_is_always_strict_json(text: str, types: frozenset[str]) -> None:
    rewritten = to_json_text(text, types)
    result = json.loads(rewritten, parse_constant=pytest.fail)
    rewritten.encode()
    if types == {"string"}:
        assert result == text


def test_text_that_lacks_one_quote_is_judged_in_one_pass() -> None:
    """Trying again at each quote would take a minute."""
    text = '{"a": "' + '\\"' * 100_000 + "}"
    assert json.loads(to_json_text(text, frozenset({"object"}))) == text
    assert json.loads(to_json_text(text + "\\", frozenset({"object"}))) == text + "\\"


@pytest.mark.parametrize(
    "reference", ["#/properties/a/anyOf/0", "#/$defs/My%20T", "#/$defs/My T", "#/$defs/a~1b"]
)
def test_pointers_lead_through_lists_and_escapes(reference: str) -> None:
    parameters = {
        "properties": {"a": {"anyOf": [{"type": "integer"}]}, "b": {"$ref": reference}},
        "$defs": {"My T": {"type": "integer"}, "a/b": {"type": "integer"}},
    }
    assert parameter_types(parameters, "b") == {"integer"}
