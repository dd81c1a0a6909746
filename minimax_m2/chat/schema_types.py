"""Which JSON value does the raw text of a tool parameter stand for?

M2 writes parameter values without quotes, so the tool's JSON schema decides between the text
`5` and the number 5. The rules are those of vLLM's parser for this model: null, integer, number,
boolean, object and array are tried in this order among the types the schema allows, then string;
text is never stripped; a schema that allows only strings gives strings. Beyond vLLM: where no
string is allowed, JSON that was encoded twice is looked into, and a raw line break in a string of
the JSON is taken for an escaped one. Nothing here raises, and what comes out is valid Unicode.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

STRING_ONLY = frozenset({"string"})

_MAX_SCHEMA_DEPTH = 32
_MAX_SCHEMA_NODES = 1000
_MAX_VALUE_DEPTH = 64
_MAX_WHOLE_FLOAT = 2.0**53

_EXACT_ALIASES = {
    "str": "string",
    "text": "string",
    "char": "string",
    "varchar": "string",
    "enum": "string",
    "int": "integer",
    "float": "number",
    "double": "number",
    "decimal": "number",
    "bool": "boolean",
    "binary": "boolean",
    "dict": "object",
    "map": "object",
    "list": "array",
    "arr": "array",
    "tuple": "array",
    "set": "array",
    "none": "null",
}
_PREFIX_ALIASES = (  # int64, uint8, long long, float32, dict[str, int], list[str] ...
    ("int", "integer"),
    ("uint", "integer"),
    ("long", "integer"),
    ("short", "integer"),
    ("unsigned", "integer"),
    ("num", "number"),
    ("float", "number"),
    ("double", "number"),
    ("dict", "object"),
    ("list", "array"),
    ("array", "array"),
    ("varchar", "string"),
)
_TYPES = frozenset({"null", "integer", "number", "boolean", "object", "array", "string"})

_SURROGATE = re.compile("[\ud800-\udfff]")

_INTEGER = re.compile(r"\s*([+-]?[0-9]+)\s*")
_NUMBER = re.compile(r"\s*([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*")
_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


def parameter_types(parameters: Any, name: str) -> frozenset[str]:
    """Types that a tool's `parameters` schema allows for one parameter; {"string"} if unsaid."""
    if not isinstance(parameters, dict):
        return STRING_ONLY
    properties = parameters.get("properties")
    schema = properties.get(name) if isinstance(properties, dict) else None
    if schema is None:
        schema = parameters.get("additionalProperties")
    types = frozenset(
        found for node in _subschemas(schema, parameters) for found in _own_types(node)
    )
    return types or STRING_ONLY


def to_json_text(text: str, types: frozenset[str]) -> str:
    """The value as JSON text, by the first allowed type that fits, else as a JSON string."""
    if "null" in types and text.lower() == "null":
        return "null"
    if "integer" in types and (integer := _as_integer(text)) is not None:
        return integer
    if "number" in types and (number := _as_number(text)) is not None:
        return number
    if "boolean" in types and (boolean := _as_boolean(text)) is not None:
        return boolean
    if not types.isdisjoint(("object", "array")):
        parsed = _as_json(text)
        if parsed is not None and parsed[0] in "{[":
            return parsed
    if "string" not in types and (parsed := _as_json(text)) is not None:
        return _encoded_once(parsed, types)
    return json_string(text)


def json_string(text: str) -> str:
    """The text as a JSON string; a lone surrogate, which no UTF-8 can carry, is U+FFFD."""
    return _SURROGATE.sub("\ufffd", json.dumps(text, ensure_ascii=False))


def json_object(text: str) -> str | None:
    """The JSON object that the text is, re-written; None for anything else."""
    parsed = _as_json(text)
    return parsed if parsed is not None and parsed[0] == "{" else None


def _encoded_once(parsed: str, types: frozenset[str]) -> str:
    """What a JSON string has in it, if that is of an allowed type; any other JSON as it is."""
    if parsed[0] != '"':
        return parsed
    inner = to_json_text(json.loads(parsed), types | STRING_ONLY)
    return inner if inner[0] != '"' else parsed


def _subschemas(schema: Any, root: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The schema and what anyOf, oneOf, allOf and local references lead to, within bounds."""
    pending = [(schema, 0)]
    num_nodes = 0
    while pending and num_nodes < _MAX_SCHEMA_NODES:
        node, depth = pending.pop()
        num_nodes += 1
        if not isinstance(node, dict) or depth > _MAX_SCHEMA_DEPTH:
            continue
        yield node
        for key in ("anyOf", "oneOf", "allOf"):
            choices = node.get(key)
            if isinstance(choices, list):
                pending.extend((choice, depth + 1) for choice in choices)
        if isinstance(node.get("$ref"), str):
            pending.append((_resolve(node["$ref"], root), depth + 1))


def _resolve(reference: str, root: Mapping[str, Any]) -> Any:
    """What a reference inside the same schema points to; None for all others."""
    if not reference.startswith("#/"):
        return None
    node: Any = root
    for part in reference[2:].split("/", maxsplit=_MAX_SCHEMA_DEPTH):
        if not isinstance(node, dict):
            return None
        node = node.get(part.replace("~1", "/").replace("~0", "~"))
    return node


def _own_types(schema: Mapping[str, Any]) -> Iterator[str]:
    """Types a schema node names itself, by `type`, `enum` or `const`."""
    declared = schema.get("type")
    for name in declared if isinstance(declared, list) else [declared]:
        if isinstance(name, str):
            yield _canonical(name)
    values = schema.get("enum")
    for value in values[:_MAX_SCHEMA_NODES] if isinstance(values, list) else []:
        yield _type_of(value)
    if "const" in schema:
        yield _type_of(schema["const"])


def _canonical(name: str) -> str:
    lowered = name.strip().lower()
    if lowered in _TYPES:
        return lowered
    if lowered in _EXACT_ALIASES:
        return _EXACT_ALIASES[lowered]
    for prefix, canonical in _PREFIX_ALIASES:
        if lowered.startswith(prefix):
            return canonical
    return "string"


def _type_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    if isinstance(value, dict):
        return "object"
    return "array" if isinstance(value, list) else "string"


def _as_integer(text: str) -> str | None:
    match = _INTEGER.fullmatch(text)
    try:
        return str(int(match[1])) if match else None
    except ValueError:  # more digits than Python converts, a client's Python among others
        return None


def _as_number(text: str) -> str | None:
    """A finite number, written as an integer when it is whole and exactly representable."""
    integer = _as_integer(text)
    if integer is not None:
        return integer
    match = _NUMBER.fullmatch(text)
    if not match:
        return None
    value = float(match[1])
    if not math.isfinite(value):
        return None
    if value.is_integer() and abs(value) <= _MAX_WHOLE_FLOAT:
        return str(int(value))
    return json.dumps(value)


def _as_boolean(text: str) -> str | None:
    lowered = text.strip().lower()
    if lowered in ("true", "1"):
        return "true"
    return "false" if lowered in ("false", "0") else None


def _as_json(text: str) -> str | None:
    """The text re-written as JSON, or None when it is not JSON, too deep or not finite."""
    if _depth(text) > _MAX_VALUE_DEPTH:
        return None
    try:
        value = json.loads(text, strict=False)
        return _SURROGATE.sub("\ufffd", json.dumps(value, ensure_ascii=False, allow_nan=False))
    except ValueError:
        return None


def _depth(text: str) -> int:
    """Nesting depth of JSON text, counted without recursion."""
    depth = deepest = 0
    for match in _BRACKETS.finditer(text):
        if match[0] in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif match[0] in "]}":
            depth -= 1
    return deepest
