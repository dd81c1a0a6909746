"""How is JSON of clients, tools and models read without loss and without unexpected errors?

The standard library's reader, except where it would drop, round or fail: a key that comes twice is
an error, integers stay exact, and a number that neither Python's integers nor its floats can hold
stays text. Lone surrogates come through for the caller to handle.
"""

import json
import math
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

_MAX_DIGITS = 4000
"""Python converts no more than 4,300 between text and integer."""


class LongNumber(str):
    """A number as it was written, which no float or reasonable integer holds exactly."""


def loads(text: str, *, lenient: bool = False) -> Any:
    """The value of JSON text.

    Args:
        lenient: accept raw control characters in strings, and NaN and the infinities (they stay
            text).

    Raises:
        ValueError: it is not JSON, has a key twice in one object, or is nested beyond what
            Python's reader can follow.
    """
    try:
        return json.loads(
            text,
            strict=not lenient,
            parse_int=_integer,
            parse_float=decimal_number,
            parse_constant=LongNumber if lenient else _refuse,
            object_pairs_hook=_object,
        )
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def decimal_number(text: str) -> float | LongNumber:
    """The float that says exactly what the text says, or the text.

    Raises ValueError when the text is no number.
    """
    if len(text) <= _MAX_DIGITS:
        value = float(text)
        try:
            if math.isfinite(value) and Decimal(repr(value)) == Decimal(text):
                return value
        except InvalidOperation:  # an exponent beyond what even decimals have
            pass
    return LongNumber(text)


def as_text(value: Any) -> str:
    """A string as it is, nothing for null, anything else as JSON text.

    Raises ValueError when it is nested beyond what Python's writer can follow.
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def is_deeper(value: Any, levels: int) -> bool:
    """Whether objects and lists are nested deeper than that; counted without recursion."""
    level = [value]
    for _ in range(levels):
        level = [child for item in level for child in _children(item)]
        if not level:
            return False
    return True


def _children(item: Any) -> list[Any]:
    """Objects and lists directly inside one."""
    values = item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
    return [value for value in values if isinstance(value, dict | list)]


def _integer(text: str) -> int | LongNumber:
    return int(text) if len(text) <= _MAX_DIGITS else LongNumber(text)


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a key comes twice")
    return members
