"""Is this body exactly one JSON object that every parser would read the same way?

orjson refuses most of what must be refused (NaN, infinities, a BOM, invalid UTF-8, lone
surrogates, trailing bytes). This file adds what it accepts: duplicate keys, integers that would
silently become floats, and bodies whose sheer number of items would cost seconds.
"""

import re
from typing import Any

import orjson

from gateway.errors import ApiError
from gateway.limits import Limits

# Outside strings only brackets, the colon that makes a string a key, and long numbers matter.
# Possessive quantifiers: linear time, no backtracking.
_TOKENS = re.compile(
    rb'"((?:[^"\\]++|\\.)*+)"?+(?:[ \t\n\r]*+(:))?+|([{}\[\]])|([-+0-9][-+.0-9eE]{17,}+)',
    re.DOTALL,
)
_KEY, _BRACKET, _NUMBER = 2, 3, 4  # the last group that took part; a plain string has 1
_LARGEST_UNSIGNED = 2**64 - 1
_SMALLEST_SIGNED = -(2**63)


def _refusal(message: str) -> ApiError:
    return ApiError(400, f"The request body is not valid JSON: {message}", code="invalid_json")


def parse_object(body: bytes, limits: Limits) -> dict[str, Any]:
    """The body's JSON object. Raises ApiError 400; time is linear and bounded by `limits`."""
    if not body.strip():
        raise _refusal("it is empty")
    _scan(body, limits)
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _refusal(str(error)) from None
    if not isinstance(value, dict):
        raise ApiError(400, "The request body must be a JSON object", code="invalid_json")
    return value


def _scan(body: bytes, limits: Limits) -> None:
    """Raise for excess depth, items, long numbers and duplicate keys.

    Malformed input may pass or fail here; orjson has the last word on the grammar.
    """
    keys_of_open: list[set[bytes] | None] = []
    for items, match in enumerate(_TOKENS.finditer(body), start=1):
        if items > limits.json_items:
            raise _refusal(f"more than {limits.json_items} strings, objects and arrays")
        kind = match.lastindex
        if kind == _KEY:
            _note_key(keys_of_open, match[1])
        elif kind == _BRACKET:
            bracket = match[_BRACKET]
            if bracket in b"{[":
                keys_of_open.append(set() if bracket == b"{" else None)
                if len(keys_of_open) > limits.json_depth:
                    raise _refusal(f"nested deeper than {limits.json_depth} levels")
            elif keys_of_open:
                keys_of_open.pop()
        elif kind == _NUMBER:
            _check_number(match[_NUMBER], limits)


def _note_key(keys_of_open: list[set[bytes] | None], key: bytes) -> None:
    keys = keys_of_open[-1] if keys_of_open else None
    if keys is None:
        return
    if b"\\" in key:
        try:
            key = orjson.loads(b'"' + key + b'"').encode()
        except orjson.JSONDecodeError as error:
            raise _refusal(f"bad key ({error})") from None
    if key in keys:
        raise _refusal(f"duplicate key {key[:60].decode('utf-8', 'replace')!r}")
    keys.add(key)


def _check_number(number: bytes, limits: Limits) -> None:
    if len(number) > limits.json_number_chars:
        raise _refusal(f"a number longer than {limits.json_number_chars} characters")
    try:
        value = int(number)
    except ValueError:
        return  # a float, or malformed: orjson decides
    if not _SMALLEST_SIGNED <= value <= _LARGEST_UNSIGNED:
        raise _refusal("an integer beyond 64 bits")
