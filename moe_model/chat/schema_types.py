"""Which JSON value does the raw text of a tool parameter stand for?

M2 writes parameter values without quotes, so the tool's JSON schema decides between the text
`5` and the number 5. The rules are those of vLLM's parser for this model: null, integer, number,
boolean, object and array are tried in this order among the types the schema allows, then string;
text is never stripped; a schema that allows only strings gives strings. Beyond vLLM: where no
string is allowed, JSON that was encoded twice is decoded twice, and a raw line break in a string of
the JSON is taken for an escaped one. Nothing here raises, and the result is valid Unicode.
"""

import json
import math
import re

from moe_model.chat.tool_schema import STRING_ONLY

_MAX_VALUE_DEPTH = 64
_MAX_WHOLE_FLOAT = 2.0**53

_SURROGATE = re.compile("[\ud800-\udfff]")

_INTEGER = re.compile(r"\s*([+-]?[0-9]+)\s*")
_NUMBER = re.compile(r"\s*([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*")
# A string that does not end takes the rest of the text: no quote in it is tried again.
_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)


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


def _as_integer(text: str) -> str | None:
    match = _INTEGER.fullmatch(text)
    try:
        return str(int(match[1])) if match else None
    except ValueError:  # more digits than Python converts; a client's may not either
        return None


def _as_number(text: str) -> str | None:
    """A finite number, written as an integer when it is whole and exactly representable."""
    integer = _as_integer(text)
    if integer is not None:
        return integer
    match = _NUMBER.fullmatch(text)
    value = float(match[1]) if match else math.nan
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
