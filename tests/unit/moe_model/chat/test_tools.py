"""Which tools may be offered, and which field does a refusal name?"""

import re
from typing import Any

import pytest

from moe_model.chat.tools import validate_tools


def tool(name: Any = "run", **function: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **function}}


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth - 1):
        schema = {"items": schema}
    return schema


def test_ordinary_tools_are_accepted() -> None:
    schema = {"type": "object", "properties": {"größe": {"type": "integer"}, "it's": {}}}
    validate_tools([])
    validate_tools([tool(), tool("a.b-C_9", description="x", parameters=schema)])
    validate_tools([tool("a" * 64, parameters=nested(32)), {"function": {"name": "untyped"}}])
    validate_tools([tool(f"t{index}") for index in range(128)])


def test_null_means_absent() -> None:
    nested = {
        "type": "object",
        "properties": None,
        "required": None,
        "anyOf": [{"const": None, "enum": [None, 1], "default": None, "title": None}],
    }
    schema = {"type": "object", "properties": {"a": None, "default": None, "c": nested}}
    offered = validate_tools(
        [
            {"type": None, "function": {"name": "f", "description": None, "parameters": None}},
            tool("g", parameters={"type": "object", "properties": None}, strict=None),
            tool("h", parameters=schema),
        ]
    )
    values = {"const": None, "enum": [None, 1], "default": None}
    inner = {"type": "object", "anyOf": [values]}
    properties = {"a": {}, "default": {}, "c": inner}
    assert [one["function"] for one in offered] == [
        {"name": "f"},
        {"name": "g", "parameters": {"type": "object"}},
        {"name": "h", "parameters": {"type": "object", "properties": properties}},
    ]


def test_tools_without_null_are_offered_as_they_are() -> None:
    tools = [tool("f", description="x", parameters={"properties": {"a": {"type": "string"}}})]
    assert validate_tools(tools) == tools


@pytest.mark.parametrize(
    ("tools", "field"),
    [
        ([5], "tools[0]"),
        ([{"type": "web_search"}], "tools[0].type"),
        ([{"type": "function"}], "tools[0].function"),
        ([tool(None)], "tools[0].function.name"),
        ([tool("")], "tools[0].function.name"),
        ([tool("a" * 65)], "tools[0].function.name"),
        ([tool('a"b')], "tools[0].function.name"),
        ([tool("a>b")], "tools[0].function.name"),
        ([tool("a\n")], "tools[0].function.name"),
        ([tool("\u0440un")], "tools[0].function.name"),
        ([tool(), tool()], "tools[1].function.name"),
        ([tool(description=5)], "tools[0].function.description"),
        ([tool(description="\udfff")], "tools[0].function"),
        ([tool(parameters=[])], "tools[0].function.parameters"),
        ([tool(parameters=nested(33))], "tools[0].function.parameters"),
        ([tool(parameters=nested(5000))], "tools[0].function.parameters"),
        ([tool(parameters={"properties": []})], "tools[0].function.parameters.properties"),
        (
            [tool(parameters={"properties": {'a">': {}}})],
            "tools[0].function.parameters.properties",
        ),
        ([tool(f"t{index}") for index in range(129)], "tools"),
        ([tool(description="x" * 256 * 1024)], "tools"),
        ([tool(parameters={"default": float("nan")})], "tools"),
    ],
)
def test_bad_tools_are_refused_by_field(tools: list[Any], field: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(field) + ": "):
        validate_tools(tools)
