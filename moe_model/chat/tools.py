"""Which tools may a request offer?

Tool names and parameter names stand between quotes in M2's tool-call format, so the rule for those
that are offered is to refuse, not to escape: a tool name is 1 to 64 of letters, digits, `_`, `.`
and `-`; a parameter name is 1 to 128 characters without `"`, `<`, `>` and control characters. Names
in past calls are escaped instead, see `tool_history.py`. Whatever a name contains, the template and
the tokenizer keep it from becoming a control token.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

from moe_model.chat.lossless_json import is_deeper
from moe_model.text.unicode_text import require_valid_text

MAX_TOOLS = 128
MAX_TOOLS_BYTES = 256 * 1024
MAX_SCHEMA_DEPTH = 32
MAX_PARAMETER_NAME_CHARS = 128

_VALUES = ("enum", "const", "default", "examples")
_NULLABLE = ("const", "default")
_SCHEMAS_BY_NAME = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_TOOL_NAME = re.compile(r"[A-Za-z0-9_.\-]{1,64}")
_PARAMETER_NAME = re.compile(r'[^"<>\x00-\x1f\x7f]{1,%d}' % MAX_PARAMETER_NAME_CHARS)  # noqa: UP031


def validate_tools(
    tools: Sequence[Any],
    field: str = "tools",
    *,
    function_name: str = ".function",
    parameters_name: str = ".parameters",
    places: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """The tools as the template takes them, without what is null in them.

    A tool is `{"type": "function", "function": {"name", "description"?, "parameters"?}}`.
    At most 128, together at most 256 KiB as JSON, schemas at most 32 levels deep, names unique.

    Args:
        function_name, parameters_name: what errors call a tool's `function` and the `parameters` in
            it, for callers who got the tools in another form.
        places: what errors call each tool; by default its place in `field`.

    Raises:
        ValueError: naming `field` or what in it, for tools that cannot be offered.
    """
    offered = []
    if len(tools) > MAX_TOOLS:
        raise ValueError(f"{field}: at most {MAX_TOOLS} are allowed, got {len(tools)}")
    names: set[str] = set()
    size_bytes = 2
    for index, tool in enumerate(tools):
        where = f"{field}[{index}]" if places is None else places[index]
        function = _offered_function(where, tool, function_name, parameters_name)
        name = function["name"]
        if name in names:
            raise ValueError(f"{where}{function_name}.name: {name!r} is used twice")
        names.add(name)
        size_bytes += _json_bytes(tool, field) + 2
        if size_bytes > MAX_TOOLS_BYTES:  # before megabytes more are read
            raise ValueError(f"{field}: at most {MAX_TOOLS_BYTES} bytes as JSON are allowed")
        offered.append({**tool, "type": "function", "function": function})
    return offered


def _json_bytes(tool: Any, field: str) -> int:
    try:
        return len(json.dumps(tool, ensure_ascii=False, allow_nan=False).encode("utf-8"))
    except ValueError as error:
        raise ValueError(f"{field}: numbers must be finite") from error


def require_tool_name(field: str, name: Any) -> str:
    """The name, or a ValueError naming `field`."""
    if not isinstance(name, str) or not _TOOL_NAME.fullmatch(name):
        raise ValueError(f"{field}: must be 1 to 64 of letters, digits, '_', '.' and '-'")
    return name


def require_parameter_name(field: str, name: Any) -> str:
    """The name, or a ValueError naming `field`."""
    if not isinstance(name, str) or not _PARAMETER_NAME.fullmatch(name):
        raise ValueError(
            f"{field}: a name must have 1 to {MAX_PARAMETER_NAME_CHARS} characters, "
            "none of them a double quote, '<', '>' or a control character"
        )
    return name


def _offered_function(
    where: str, tool: Any, function_name: str, parameters_name: str
) -> dict[str, Any]:
    """The tool's function, checked; null means absent."""
    if not isinstance(tool, dict):
        raise ValueError(f"{where}: must be an object")
    if tool.get("type") not in ("function", None):
        raise ValueError(f"{where}.type: must be 'function'")
    if not isinstance(tool.get("function"), dict):
        raise ValueError(f"{where}.function: must be an object")
    where = f"{where}{function_name}"
    if is_deeper(tool["function"], MAX_SCHEMA_DEPTH + 1):  # the parameters themselves are level 1
        raise ValueError(f"{where}{parameters_name}: nested deeper than {MAX_SCHEMA_DEPTH} levels")
    require_valid_text(where, tool["function"])
    function = without_null(tool["function"])
    require_tool_name(f"{where}.name", function.get("name"))
    if not isinstance(function.get("description", ""), str):
        raise ValueError(f"{where}.description: must be a string")
    if "parameters" not in function:
        return function
    where = f"{where}{parameters_name}"
    if not isinstance(function["parameters"], dict):
        raise ValueError(f"{where}: must be an object or absent")
    properties = function["parameters"].get("properties", {})
    if not isinstance(properties, dict):
        raise ValueError(f"{where}.properties: must be an object")
    for key in properties:
        require_parameter_name(f"{where}.properties", key)
    return function


def without_null(function: dict[str, Any]) -> dict[str, Any]:
    """The function with what is null in it and its schema left out, as if it were absent.

    A null that is a value (`default`, `const`, inside `enum`) stays.
    """
    given = {key: value for key, value in function.items() if value is not None}
    if "parameters" in given:
        given["parameters"] = _schema_without_null(given["parameters"])
    return given


def _schema_without_null(node: Any) -> Any:
    if isinstance(node, list):
        return [_schema_without_null(item) for item in node]
    if not isinstance(node, dict):
        return node
    schema = {}
    for key, value in node.items():
        if key in _VALUES and (value is not None or key in _NULLABLE):
            schema[key] = value
        elif key in _SCHEMAS_BY_NAME and isinstance(value, dict):
            named = {name: {} if one is None else one for name, one in value.items()}
            schema[key] = {name: _schema_without_null(one) for name, one in named.items()}
        elif value is not None:
            schema[key] = _schema_without_null(value)
    return schema
