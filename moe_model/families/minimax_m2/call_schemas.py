"""Which JSON Schema does one parameter of a forced call follow?

A parameter's schema is cut out of its tool's, so what it refers to there must come along. Integers
get bounds: without them a model may go on with digits for ever.
"""

from collections.abc import Callable, Mapping
from typing import Any

from moe_model.chat.answer_grammar import TOOL_ROOT

_INTEGER_BOUND = 9 * 10**18
"""Within 64 bits, the most that llguidance bounds an integer by."""
_DIGITS = 40
_INTEGER = f"-?(0|[1-9][0-9]{{0,{_DIGITS - 1}}})"
_PATTERNS = {
    "integer": _INTEGER,
    "number": rf"{_INTEGER}(\.[0-9]{{1,{_DIGITS}}})?([eE][+-]?[0-9]{{1,2}})?",
    "boolean": "true|false",
    "null": "null",
}
_NOT_SCHEMAS = ("enum", "const", "default", "examples")
_SAYS_NOTHING = {"type", "title", "description", "default", "examples", "format", "$comment"}
_SCHEMAS_BY_NAME = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")


def number_pattern(schema: Any) -> str | None:
    """A regular expression for a plain number (or null), None for any other schema."""
    if not isinstance(schema, dict) or not schema.keys() <= _SAYS_NOTHING:
        return None
    types = schema.get("type")
    wanted = {str(one) for one in (types if isinstance(types, list) else [types])}
    if not wanted <= _PATTERNS.keys() or not wanted & {"integer", "number"}:
        return None
    return "/" + "|".join(f"({_PATTERNS[one]})" for one in sorted(wanted)) + "/"


def value_schema(schema: Any, parameters: Mapping[str, Any]) -> Any:
    """The schema with all that it refers to in its tool's `parameters`, integers bounded."""
    if not isinstance(schema, dict):
        return schema
    own = {key: value for key, value in schema.items() if key not in ("$defs", "definitions")}
    if not _refers(schema):
        return _walk(own, _bounded)
    root = _walk(_walk(dict(parameters), _under_root), _bounded)
    return {
        **_walk(_walk(own, _under_root), _bounded),
        "$defs": {TOOL_ROOT.rpartition("/")[2]: root},
    }


def _walk(node: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """The schema with `change` made to each schema in it, the inner ones first."""
    if isinstance(node, list):
        return [_walk(item, change) for item in node]
    if not isinstance(node, dict):
        return node
    inner = {key: _inside(key, value, change) for key, value in node.items()}
    return change(inner)


def _inside(key: str, value: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    if key in _SCHEMAS_BY_NAME and isinstance(value, dict):
        return {name: _walk(schema, change) for name, schema in value.items()}
    return value if key in _NOT_SCHEMAS else _walk(value, change)


def _refers(schema: Any) -> bool:
    """Whether there is a reference into the same document."""
    found = []

    def note(node: dict[str, Any]) -> dict[str, Any]:
        found.append(str(node.get("$ref", "")).startswith("#"))
        return node

    _walk(schema, note)
    return any(found)


def _under_root(node: dict[str, Any]) -> dict[str, Any]:
    """The node with its reference pointing into the tool's schema under `#/$defs/`."""
    reference = node.get("$ref")
    if isinstance(reference, str) and (reference == "#" or reference.startswith("#/")):
        return {**node, "$ref": f"{TOOL_ROOT}{reference[1:]}"}
    return node


def _bounded(node: dict[str, Any]) -> dict[str, Any]:
    """Bounds for an integer that has none."""
    types = node.get("type")
    is_integer = types == "integer" or (isinstance(types, list) and "integer" in types)
    if not is_integer or "enum" in node or "const" in node:
        return node
    bounds = {}
    low = [node[key] for key in ("minimum", "exclusiveMinimum") if _is_number(node.get(key))]
    high = [node[key] for key in ("maximum", "exclusiveMaximum") if _is_number(node.get(key))]
    if not low and min([*high, 0]) >= -_INTEGER_BOUND:
        bounds["minimum"] = -_INTEGER_BOUND
    if not high and max([*low, 0]) <= _INTEGER_BOUND:
        bounds["maximum"] = _INTEGER_BOUND
    return {**node, **bounds}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
