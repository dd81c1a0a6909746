"""Which JSON Schema does one parameter of a forced call follow?

A parameter's schema is cut out of its tool's, so references into the tool's have to be taken along,
and integers get bounds: without any a model may go on with digits for ever.
"""

from collections.abc import Mapping
from typing import Any

_INTEGER_BOUND = 9 * 10**18
"""Within 64 bits, the most that llguidance bounds an integer by."""
_DIGITS = 40
_NOT_SCHEMAS = ("enum", "const", "default", "examples")
_SAYS_NOTHING = {"type", "title", "description", "default", "examples", "format", "$comment"}
_ROOT = "expertmesh_tool"


def number_pattern(schema: Any) -> str | None:
    """A regular expression of a plain integer's or number's JSON; None for any other schema."""
    if not isinstance(schema, dict) or not schema.keys() <= _SAYS_NOTHING:
        return None
    integer = f"-?(0|[1-9][0-9]{{0,{_DIGITS - 1}}})"
    if schema.get("type") == "integer":
        return f"/{integer}/"
    if schema.get("type") == "number":
        return rf"/{integer}(\.[0-9]{{1,{_DIGITS}}})?([eE][+-]?[0-9]{{1,2}})?/"
    return None


def value_schema(schema: Any, parameters: Mapping[str, Any]) -> Any:
    """The schema with all that it refers to in its tool's `parameters`, integers bounded."""
    if not isinstance(schema, dict):
        return schema
    own = {key: value for key, value in schema.items() if key not in ("$defs", "definitions")}
    if not _refers(schema):
        return _bounded(own)
    root = _bounded(_under_root(parameters))
    return {**_bounded(_under_root(own)), "$defs": {_ROOT: root}}


def _children(node: Any) -> list[Any]:
    if isinstance(node, dict):
        return [value for key, value in node.items() if key not in _NOT_SCHEMAS]
    return node if isinstance(node, list) else []


def _refers(node: Any) -> bool:
    """Whether there is a reference into the same document."""
    pending = [node]
    while pending:
        item = pending.pop()
        if isinstance(item, dict) and str(item.get("$ref", "")).startswith("#"):
            return True
        pending += _children(item)
    return False


def _under_root(node: Any) -> Any:
    """The same with each reference leading through `#/$defs/...`, where the tool's schema stands."""
    if isinstance(node, list):
        return [_under_root(item) for item in node]
    if not isinstance(node, dict):
        return node
    moved = {k: v if k in _NOT_SCHEMAS else _under_root(v) for k, v in node.items()}
    reference = node.get("$ref")
    if isinstance(reference, str) and (reference == "#" or reference.startswith("#/")):
        moved["$ref"] = f"#/$defs/{_ROOT}{reference[1:]}"
    return moved


def _bounded(node: Any) -> Any:
    """The same with bounds for each integer that has none."""
    if isinstance(node, list):
        return [_bounded(item) for item in node]
    if not isinstance(node, dict):
        return node
    bounded = {k: v if k in _NOT_SCHEMAS else _bounded(v) for k, v in node.items()}
    types = node.get("type")
    is_integer = types == "integer" or (isinstance(types, list) and "integer" in types)
    if is_integer and "enum" not in node and "const" not in node:
        if not {"minimum", "exclusiveMinimum"} & node.keys():
            bounded["minimum"] = -_INTEGER_BOUND
        if not {"maximum", "exclusiveMaximum"} & node.keys():
            bounded["maximum"] = _INTEGER_BOUND
    return bounded
