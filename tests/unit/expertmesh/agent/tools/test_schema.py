"""What fits the schemas of tools, and what a model is told when something does not."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expertmesh.agent.tools.schema import problems
from expertmesh.agent.tools.tool import object_schema
from tests.support.examples import examples

EDIT = object_schema(
    {"path": {"type": "string", "minLength": 1}},
    {
        "action": {"enum": ["read", "write"]},
        "line": {"type": "integer", "minimum": 1},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
    },
)


def test_what_fits_has_no_problems() -> None:
    value = {"path": "a", "action": "read", "line": 3, "tags": ["x"]}
    assert problems(value, EDIT) == []


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({}, ["path is missing"]),
        ({"path": ""}, ["path needs at least 1 characters, has 0"]),
        ({"path": 3}, ["path must be string, not 3"]),
        ({"path": "a", "action": "erase"}, ["action must be one of 'read', 'write', not 'erase'"]),
        ({"path": "a", "line": 0}, ["line must be at least 1, not 0"]),
        ({"path": "a", "line": True}, ["line must be integer, not True"]),
        ({"path": "a", "line": 1.5}, ["line must be integer, not 1.5"]),
        ({"path": "a", "line": 1e999}, ["line must be integer, not inf"]),
        ({"path": "a", "tags": ["x", 1]}, ["tags[1] must be string, not 1"]),
        ({"path": "a", "tags": ["x", "y", "z"]}, ["tags may have at most 2 items, has 3"]),
        (
            {"path": "a", "file": "b"},
            ["file: there is no such argument; known are path, action, line, tags"],
        ),
        ([], ["the arguments: must be object, not []"]),
    ],
)
def test_each_fault_names_the_field_and_what_is_allowed(value: Any, words: list[str]) -> None:
    assert problems(value, EDIT) == words


def test_true_is_not_one_of_the_numbers_listed() -> None:
    assert problems(True, {"enum": [1, 2]})
    assert problems(1, {"const": True})
    assert problems(1.0, {"enum": [1]}) == []


def test_alternatives() -> None:
    schema = {"anyOf": [{"type": "string"}, {"type": "integer", "minimum": 3}]}
    assert problems("a", schema) == []
    assert problems(3, schema) == []
    assert problems(2, schema) == [
        "the arguments: fits none of 2 forms; of the nearest: the arguments: must be string, not 2"
    ]
    assert problems(5, {"oneOf": [{"type": "integer"}, {"minimum": 3}]})
    assert problems(5, {"allOf": [{"type": "integer"}, {"maximum": 3}]})
    assert problems(None, {"type": ["string", "null"]}) == []


def test_references_are_followed_within_the_schema() -> None:
    schema = {
        "$defs": {"a/b": {"type": "integer"}},
        "properties": {"x": {"$ref": "#/$defs/a~1b"}, "y": {"$ref": "http://else.where/"}},
    }
    assert problems({"x": 1, "y": 1}, schema) == []
    assert problems({"x": "1"}, schema) == ["x must be integer, not '1'"]


def test_a_schema_that_refers_to_itself_ends() -> None:
    fan = {"anyOf": [{"$ref": "#"}, {"$ref": "#"}], "type": "string"}
    assert problems(1, fan) == ["the arguments are nested too deeply for their schema"]


@pytest.mark.parametrize(
    "schema", [{"required": 3}, {"properties": []}, {"enum": "abc"}, {"type": 7}, {"items": 1}, 5]
)
def test_a_strangers_malformed_schema_raises_nothing(schema: Any) -> None:
    problems({"a": [1]}, schema)


JSON_VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@examples(many=300)
@given(JSON_VALUES)
def test_a_value_fits_the_schema_that_says_what_it_is(value: Any) -> None:
    assert problems(value, {"const": value}) == []
    assert problems(value, _schema_of(value)) == []
    assert problems([value], _schema_of(value)) or isinstance(value, list)


def _schema_of(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return object_schema({key: _schema_of(item) for key, item in value.items()})
    if isinstance(value, list):
        return {"type": "array", "minItems": len(value), "items": {}}
    names = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}
    return {"type": names[type(value)]}


@examples(many=200)
@given(JSON_VALUES, JSON_VALUES)
def test_any_schema_and_any_value_give_text(value: Any, schema: Any) -> None:
    assert all(isinstance(line, str) for line in problems(value, schema))
    json.dumps(problems(value, schema))
