"""What does a cell hold: a number, a date, a word? Judged by how it is written."""

import re
from collections.abc import Sequence
from enum import StrEnum


class Kind(StrEnum):
    """What a cell, or a whole column, holds."""

    INTEGER = "integer"
    DECIMAL = "decimal"
    FORMATTED = "formatted number"
    """Written for people: 1,234.50, 12 %, $5, 3,5. Programs read it as text."""
    BOOLEAN = "boolean"
    DATE = "date"
    DATETIME = "date and time"
    TEXT = "text"
    LIST = "list"
    OBJECT = "object"
    EMPTY = "empty"


NUMBERS = frozenset((Kind.INTEGER, Kind.DECIMAL))
DATES = frozenset((Kind.DATE, Kind.DATETIME))

MISSING = frozenset(
    ("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN",
     "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null")
)  # fmt: skip
"""What pandas reads as missing too, so that a script counts as we do."""
BOOLEANS = frozenset(("true", "false", "yes", "no", "y", "n", "t", "f", "\u662f", "\u5426"))

# No leading zeros: 00123 is a code. 18 digits fit into 64 bits.
_INTEGER = r"[+-]?(?:0|[1-9][0-9]{0,17})"
_EXPONENT = r"[eE][+-]?[0-9]{1,3}"
_DECIMAL = (
    rf"[+-]?(?:(?:[0-9]{{1,18}}\.[0-9]{{0,30}}|\.[0-9]{{1,30}})(?:{_EXPONENT})?"
    rf"|[0-9]{{1,18}}{_EXPONENT})"
)
# Only such as sort by time when they are sorted as text.
_DATE = r"[0-9]{4}([-/])(?:0[1-9]|1[0-2])\1(?:0[1-9]|[12][0-9]|3[01])"
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:[.,][0-9]{1,9})?)?"
_ZONE = r"(?:\s?(?:Z|UTC|[+-][0-9]{2}:?[0-9]{2}))?"
_FORMATTED = (
    r"[-+(]?\s?(?:[$\u20ac\u00a3\u00a5]\s?)?[0-9]{1,3}(?:(?:[,.' \u00a0\u202f][0-9]{3})*|[0-9]*)"
    r"(?:[.,][0-9]{1,10})?\s?[%\u20ac$\u00a5\u5143]?\)?"
)
_PATTERNS = (
    (Kind.INTEGER, re.compile(_INTEGER)),
    (Kind.TEXT, re.compile(r"[+-]?[0-9]+")),
    (Kind.DECIMAL, re.compile(_DECIMAL)),
    (Kind.DATE, re.compile(_DATE)),
    (Kind.DATETIME, re.compile(_DATE + r"[T\s]" + _TIME + _ZONE)),
    (Kind.FORMATTED, re.compile(_FORMATTED)),
)
_MOST_CHARS = 64
"""Longer than any number or date."""
_ALL_INTEGERS = re.compile(rf"(?:{_INTEGER}\n)*")
_ALL_DECIMALS = re.compile(rf"(?:(?:{_INTEGER}|{_DECIMAL})\n)*")


def kind_of(text: str) -> Kind:
    """Of one cell that is not missing, without spaces around it."""
    if len(text) <= _MOST_CHARS:
        for kind, pattern in _PATTERNS:
            if pattern.fullmatch(text):
                return kind
    return Kind.TEXT


def number_kind(texts: Sequence[str]) -> Kind | None:
    """INTEGER or DECIMAL if all of them are numbers: looking at all at once is ten times faster."""
    joined = "\n".join(texts) + "\n"
    if _ALL_INTEGERS.fullmatch(joined):
        return Kind.INTEGER
    return Kind.DECIMAL if _ALL_DECIMALS.fullmatch(joined) else None
