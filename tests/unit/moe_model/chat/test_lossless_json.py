"""JSON is read without loss, and strings are made valid without losing a key."""

import json
import math
import re
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_model.chat.lossless_json import LongNumber, as_text, loads
from moe_model.text.unicode_text import repaired, require_valid_text

TEXT = st.text("\ud800\udc00\ufffd1a", max_size=4)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=6),
    max_leaves=12,
)


@given(JSON.filter(lambda value: "Infinity" not in json.dumps(value)))
def test_what_was_written_is_read_back(value: Any) -> None:
    assert loads(json.dumps(value, ensure_ascii=False)) == value
    if isinstance(value, list | dict):
        assert loads(as_text(value)) == value


@given(
    st.from_regex(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,4})?", fullmatch=True)
)
def test_every_number_keeps_its_value(text: str) -> None:
    value = loads(text)
    assert isinstance(value, LongNumber) or math.isfinite(value)
    assert Decimal(str(value)) == Decimal(text)


@pytest.mark.parametrize("text", ["", "{", "nul", '{"a": 1, "a": 1}', "[" * 100_000, '"\n"', "NaN"])
def test_what_is_no_json_or_loses_something_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        loads(text)


def test_by_the_letter_or_by_the_meaning() -> None:
    assert loads('{"a": "b\n\0", "c": [NaN, -Infinity]}', lenient=True) == {
        "a": "b\n\0",
        "c": ["NaN", "-Infinity"],
    }


@given(JSON)
def test_repaired_text_is_valid_and_complete(value: Any) -> None:
    result = repaired(value)
    require_valid_text("result", result)
    assert sizes(result) == sizes(value)
    assert repaired(result) is result


def sizes(value: Any) -> list[int]:
    """How many members and items each part has, in order."""
    if not isinstance(value, dict | list):
        return []
    items = list(value.values()) if isinstance(value, dict) else value
    return [len(items), *(size for item in items for size in sizes(item))]


@given(st.text("\ud800\udbff\udc00\udfff\U0001f642a", max_size=8))
def test_halves_that_meet_are_one_character_and_others_a_mark_each(text: str) -> None:
    whole = re.sub("([\ud800-\udbff])([\udc00-\udfff])", joined, text)
    assert repaired(text) == re.sub("[\ud800-\udfff]", "\ufffd", whole)


def joined(halves: re.Match[str]) -> str:
    return chr(0x10000 + ((ord(halves[1]) - 0xD800) << 10) + ord(halves[2]) - 0xDC00)


def test_many_keys_that_become_alike_stay_apart_in_linear_time() -> None:
    keys = [chr(0xD800 + i % 2048) + chr(0xD800 + i // 2048) for i in range(50_000)]
    members = {key: number for number, key in enumerate(keys)}
    assert sorted(repaired(members).values()) == sorted(members.values())
