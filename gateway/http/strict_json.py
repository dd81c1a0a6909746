"""Is this body exactly one JSON object that every parser would read the same way?

orjson refuses most of what must be refused (NaN, infinities, a BOM, invalid UTF-8, lone
surrogates, trailing bytes). This file also refuses what orjson accepts: duplicate keys, integers
that would silently become floats, and bodies with so many items that they would cost seconds.

Earlier messages may hold lone surrogates and numbers of any length, since a client sends them
again with every request. The field with these messages may have them; elsewhere the error names
the field.

Bodies have megabytes, mostly text. So all bytes are examined by calls that process the whole body
at once; loops in Python run only over strings, brackets and long numbers, whose number is bounded.
"""

import json
import math
import re
from collections.abc import Iterator
from typing import Any

import orjson

from gateway.errors import Kind, RequestError, bad_field
from gateway.limits import Limits
from moe_model.chat.lossless_json import LongNumber, decimal_number, loads
from moe_model.text.unicode_text import is_valid_text

_MAX_FIELD_CHARS = 200
_SURROGATE = "must be valid Unicode text, has a lone surrogate"

_BRACKETS = b"{}[]"
_ALL_BUT_BRACKETS = bytes(byte for byte in range(256) if byte not in _BRACKETS)
_BLANKS = b" \t\n\r"
_NUMBER_BYTES = b"+-.0123456789eE"
_NUMBERS_AS_ZEROS = bytes(48 if byte in _NUMBER_BYTES else 32 for byte in range(256))
_LONG_NUMBER = re.compile(rb"[-+.0-9eE]{17,}+|[-+.0-9]++[eE]-[-+.0-9eE]++")
"""Other ones are neither beyond 64 bits nor over a sensible limit, and floats say them exactly."""
_LONG = b"0" * 17
_PIECE_BYTES = 256 * 1024
_LARGEST_UNSIGNED = 2**64 - 1
_SMALLEST_SIGNED = -(2**63)


_NOT_JSON = "The request body is not valid JSON: "


def _refusal(message: str) -> RequestError:
    return RequestError(Kind.INVALID_REQUEST, _NOT_JSON + message, reason="invalid_json")


def parse_text(field: str, text: str, limits: Limits) -> Any:
    """The JSON value that a field has as text, by the same rules as a body.

    Raises RequestError naming the field.
    """
    data = text.encode("utf-8", "surrogatepass")  # a lone surrogate is no UTF-8: refused below
    try:
        if _scan(data, limits):
            most = limits.json_number_chars
            raise _refusal(f"an integer beyond 64 bits, or a number longer than {most} characters")
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise bad_field(field, f"not valid JSON ({error})") from None
    except RequestError as error:
        raise bad_field(field, f"not valid JSON: {error.message.removeprefix(_NOT_JSON)}") from None


def parse_object(body: bytes, limits: Limits, history: str | None) -> dict[str, Any]:
    """The body's JSON object. Raises RequestError; time is linear and bounded by `limits`.

    `history`: the field that holds earlier messages. Strings there may have lone surrogates, and
    numbers may be `LongNumber`s.
    """
    if not body.strip():
        raise _refusal("it is empty")
    has_long_numbers = _scan(body, limits)
    try:
        value = loads(body.decode()) if has_long_numbers else orjson.loads(body)
    except orjson.JSONDecodeError as error:
        try:
            value = loads(body.decode())
        except ValueError:
            raise _refusal(str(error)) from None
        has_long_numbers = True
    except ValueError as error:
        raise _refusal(str(error)) from None
    if not isinstance(value, dict):
        raise RequestError(
            Kind.INVALID_REQUEST, "The request body must be a JSON object", reason="invalid_json"
        )
    if has_long_numbers:
        return {
            key: item if key == history else _plain(_checked_key("", key), item, limits)
            for key, item in value.items()
        }
    return value


def _plain(field: str, value: Any, limits: Limits) -> Any:
    """The value with ordinary numbers. Raises RequestError naming the field of any other."""
    field = field[:_MAX_FIELD_CHARS]  # of each, since every member repeats it
    if isinstance(value, dict):
        return {
            key: _plain(f"{field}.{_checked_key(field, key)}", item, limits)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_plain(f"{field}[{i}]", item, limits) for i, item in enumerate(value)]
    if isinstance(value, LongNumber):
        if len(value) <= limits.json_number_chars and math.isfinite(float(value)):
            return float(value)
        raise bad_field(field, "is a number too long or too large", "invalid_json")
    if isinstance(value, int) and not _SMALLEST_SIGNED <= value <= _LARGEST_UNSIGNED:
        raise bad_field(field, "is an integer beyond 64 bits", "invalid_json")
    if isinstance(value, str) and not is_valid_text(value):
        raise bad_field(field, _SURROGATE, "invalid_json")
    return value


def _checked_key(field: str, key: str) -> str:
    if not is_valid_text(key):
        raise bad_field(field or "body", f"a name in it {_SURROGATE}", "invalid_json")
    return key


def _scan(body: bytes, limits: Limits) -> bool:
    """Whether there are long numbers. Raises RequestError for excess depth, items, duplicate keys.

    Malformed input may pass or fail here; orjson decides on the grammar.
    """
    has_long_numbers = False
    too_many = _refusal(f"more than {limits.json_items} strings, objects and arrays")
    parts = _without_escapes(body).split(b'"', 2 * limits.json_items + 1)
    items = len(parts) // 2
    if items > limits.json_items:
        raise too_many
    if sum(part.count(b",") for part in parts[::2]) > limits.json_values:
        raise _refusal(f"more than {limits.json_values} values")
    keys_of_open: list[set[bytes] | None] = []
    start = 0
    for index in range(0, len(parts), 2):
        between = parts[index]  # the text after one string and before the next
        if index:
            end = start + len(parts[index - 1])
            if between.lstrip(_BLANKS)[:1] == b":":
                _note_key(keys_of_open, body[start:end])
            start = end + 1
        start += len(between) + 1
        for bracket in between.translate(None, _ALL_BUT_BRACKETS):
            items += 1
            if items > limits.json_items:
                raise too_many
            _nest(keys_of_open, bracket, limits)
        if len(between) >= len(_LONG) or b"-" in between:
            for number in _long_numbers(between):
                items += 1
                if items > limits.json_items:
                    raise too_many
                has_long_numbers = has_long_numbers or _is_long(number, limits)
    return has_long_numbers


def _without_escapes(body: bytes) -> bytes:
    """The body with escaped backslashes and quotes masked: every quote left is a delimiter.

    Piece by piece, so that other threads get their turn; a cut never splits an escape.
    """
    pieces = []
    start = 0
    while start < len(body):
        piece = body[start : start + _PIECE_BYTES]
        start += len(piece)
        if start < len(body) and (len(piece) - len(piece.rstrip(b"\\"))) % 2:
            piece = piece[:-1]
            start -= 1
        pieces.append(piece.replace(rb"\\", b"\1\1").replace(rb"\"", b"\1\1"))
    return b"".join(pieces)


def _nest(keys_of_open: list[set[bytes] | None], bracket: int, limits: Limits) -> None:
    if bracket in b"{[":
        keys_of_open.append(set() if bracket == ord("{") else None)
        if len(keys_of_open) > limits.json_depth:
            raise _refusal(f"nested deeper than {limits.json_depth} levels")
    elif keys_of_open:
        keys_of_open.pop()


def _long_numbers(text: bytes) -> Iterator[bytes]:
    """Runs of number characters that may be too long; quick where there are none."""
    if b"e-" in text or b"E-" in text or _LONG in text.translate(_NUMBERS_AS_ZEROS):
        for match in _LONG_NUMBER.finditer(text):
            yield match[0]


def _note_key(keys_of_open: list[set[bytes] | None], key: bytes) -> None:
    keys = keys_of_open[-1] if keys_of_open else None
    if keys is None:
        return
    if b"\\" in key:
        try:
            key = json.loads(f'"{key.decode()}"').encode("utf-8", "surrogatepass")
        except ValueError as error:
            raise _refusal(f"bad key ({error})") from None
    if key in keys:
        raise _refusal(f"duplicate key {key[:60].decode('utf-8', 'replace')!r}")
    keys.add(key)


def _is_long(number: bytes, limits: Limits) -> bool:
    """Whether orjson would refuse or round it.

    Such numbers are read without loss, then judged by their place.
    """
    if len(number) > limits.json_number_chars:
        return True
    try:
        return not _SMALLEST_SIGNED <= int(number) <= _LARGEST_UNSIGNED
    except ValueError:
        pass
    try:
        return isinstance(decimal_number(number.decode()), LongNumber)
    except ValueError:
        return False  # malformed: orjson decides
