"""Rows B1, B2 and B5: one JSON object, with one reading."""

import json
import time
from collections import Counter
from decimal import Decimal, InvalidOperation
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Kind, RequestError
from gateway.http import strict_json
from gateway.limits import Limits
from tests.support.examples import examples

LIMITS = Limits()
parse_object = partial(strict_json.parse_object, history="messages")


def refusal(body: bytes) -> str:
    with pytest.raises(RequestError) as caught:
        parse_object(body, LIMITS)
    assert caught.value.kind is Kind.INVALID_REQUEST
    assert caught.value.reason == "invalid_json"
    return caught.value.message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" \n ",
        b"hello",
        b'{"a": 1',
        b'{"a": "\xff"}',
        b'{"a": "\xed\xa0\x80"}',
        b'\xef\xbb\xbf{"a": 1}',
        b'{"a": 1} x',
        b'{"a": 1}{"a": 1}',
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b'{"a": 1e400}',
        b'{"a": 01}',
        b"{'a': 1}",
        b'{"a": 1,}',
        b'{"a": "\\ud800"}',
        b'{"a": "\\udc00\\ud800"}',
        b'{"\\ud800": 1}',
        b'{"a": "b\nc"}',
        b'{"a": "b\\x"}',
        b"[1]",
        b'"text"',
        b"null",
        b"//comment\n{}",
    ],
)
def test_what_is_not_one_json_object_is_refused(body: bytes) -> None:
    refusal(body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": 1, "a": 2}',
        b'{"a": 1, "\\u0061": 2}',
        b'{"x": [{"b": 1, "b": 1}]}',
        b'{"" : 1, "" : 2}',
    ],
)
def test_duplicate_keys_are_refused(body: bytes) -> None:
    assert "duplicate key" in refusal(body)


def test_the_same_key_in_different_objects_is_no_duplicate() -> None:
    body = b'{"a": {"a": 1}, "b": [{"a": 1}, {"a": 2}], "c": "a"}'
    assert parse_object(body, LIMITS) == json.loads(body)


@pytest.mark.parametrize(
    "number", [b"18446744073709551616", b"-9223372036854775809", b"1" * 100_000]
)
def test_integers_that_would_become_floats_are_refused(number: bytes) -> None:
    refusal(b'{"a": ' + number + b"}")


@pytest.mark.parametrize("number", [2**64 - 1, -(2**63), 0])
def test_integers_of_64_bits_are_exact(number: int) -> None:
    assert parse_object(b'{"a": %d}' % number, LIMITS) == {"a": number}


LONG_NUMBERS = [b"18446744073709551616", b"1" * 5000, b"0." + b"3" * 50, b"1e400", b"-1e400"]


@pytest.mark.parametrize("number", LONG_NUMBERS)
def test_what_was_said_may_have_numbers_of_any_length(number: bytes) -> None:
    read = parse_object(b'{"messages": [{"content": {"n": %b}}], "n": 1}' % number, LIMITS)
    assert str(read["messages"][0]["content"]["n"]).encode() == number
    assert read["n"] == 1


@pytest.mark.parametrize("number", LONG_NUMBERS)
def test_elsewhere_the_field_of_such_a_number_is_named(number: bytes) -> None:
    for body, field in (
        (b'{"messages": [], "seed": %b}', "seed"),
        (b'{"messages": [%b], "tools": [{"x": {"maximum": %b}}]}', "tools[0].x.maximum"),
    ):
        with pytest.raises(RequestError) as caught:
            parse_object(body.replace(b"%b", number), LIMITS)
        assert caught.value.field == field
        assert caught.value.message.startswith(f"{field}: ")


def test_ordinary_floats_beside_such_numbers_stay_floats() -> None:
    body = b'{"messages": [1e400], "temperature": 0.12345678901234567890, "top_p": 0.5}'
    assert parse_object(body, LIMITS) == {
        "messages": ["1e400"],
        "temperature": 0.12345678901234567890,
        "top_p": 0.5,
    }


def test_what_was_said_may_have_lone_surrogates() -> None:
    body = rb'{"messages": [{"content": "\ud83d", "\ud83d": "\ud83d\ude42"}], "n": 1}'
    assert parse_object(body, LIMITS) == {
        "messages": [{"content": "\ud83d", "\ud83d": "\U0001f642"}],
        "n": 1,
    }


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (rb'{"tools": [{"function": {"name": "\ud83d"}}]}', "tools[0].function.name"),
        (rb'{"tools": [{"properties": {"a\ud83d": {}}}]}', "tools[0].properties"),
        (rb'{"prompt": ["a", "\udc00"]}', "prompt[1]"),
        (rb'{"\ud83d": 1}', "body"),
    ],
)
def test_elsewhere_the_field_of_a_lone_surrogate_is_named(body: bytes, param: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_object(body, LIMITS)
    assert (caught.value.kind, caught.value.field) == (Kind.INVALID_REQUEST, param)


def test_keys_with_lone_surrogates_count_as_keys() -> None:
    body = rb'{"messages": [{"\ud83d": 1, "\uD83D": 2}]}'
    assert "duplicate key" in refusal(body)


def test_a_long_name_is_not_repeated_for_each_member() -> None:
    members = ",".join(f'"{i}":{2**70 if i == 49_999 else 1}' for i in range(50_000))
    body = f'{{"{"k" * 2**20}": {{{members}}}}}'.encode()
    with pytest.raises(RequestError) as caught:
        parse_object(body, LIMITS)
    assert caught.value.field == "k" * 200


def test_long_numbers_inside_strings_are_text() -> None:
    text = "1" * 1000 + '"[{'
    assert parse_object(json.dumps({"a": text}).encode(), LIMITS) == {"a": text}


@pytest.mark.parametrize(
    "text", ["\0", "\u202e\u2066", "e" + "\u0301" * 10_000, "\U0010ffff\U0001f642é"]
)
def test_valid_unicode_comes_through_exactly(text: str) -> None:
    for ensure_ascii in (True, False):
        body = json.dumps({"a": text}, ensure_ascii=ensure_ascii).encode()
        assert parse_object(body, LIMITS) == {"a": text}


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"{" + b",".join(b'"%d":1' % i for i in range(1_000_000)) + b"}",
        b'{"a": ' + b"1" * 100_000 + b"}",
        b'{"a": [' + b"{}," * 1_000_000 + b"{}]}",
        b'{"a": [' + b"1," * 5_000_000 + b"1]}",
        b'{"a": [' + b"123456789012345678, " * 200_000 + b"1]}",
        b'{"a": "' + rb"\"" * 5_000_000 + b"}",
    ],
    ids=["deep", "keys", "digits", "objects", "values", "long", "escapes"],
)
def test_hostile_bodies_are_refused_without_reading_all_of_them(body: bytes) -> None:
    started_s = time.process_time()
    refusal(body)
    # Far above the tenth of a second it takes; a quadratic scan would need minutes.
    assert time.process_time() - started_s < 5


def test_depth_limit_is_exact() -> None:
    def nested(levels: int) -> bytes:
        return b'{"a":' * levels + b"1" + b"}" * levels

    parse_object(nested(LIMITS.json_depth), LIMITS)
    assert "nested deeper" in refusal(nested(LIMITS.json_depth + 1))


def test_a_long_list_of_token_ids_is_not_many_items() -> None:
    ids = list(range(200_000))
    assert parse_object(json.dumps({"prompt": ids}).encode(), LIMITS) == {"prompt": ids}


@pytest.mark.parametrize("num_before", [0, 1, 2])
@pytest.mark.parametrize("text", ["\\" * 600_000, '"' * 600_000, '\\"' * 300_000, "x" * 600_000])
def test_escapes_across_the_borders_of_pieces_are_read_right(num_before: int, text: str) -> None:
    value = {"b" * num_before: text, "key": "value", "other": '"'}
    assert parse_object(json.dumps(value).encode(), LIMITS) == value
    body = json.dumps(value).encode()
    assert "duplicate key" in refusal(body[:-1] + b', "key": 1}')


_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXT,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(_TEXT, children, max_size=4),
    max_leaves=8,
)


@given(st.dictionaries(_TEXT, _JSON, max_size=4), st.booleans())
def test_every_valid_object_is_read_as_the_standard_library_reads_it(
    value: dict[str, Any], ensure_ascii: bool
) -> None:
    body = json.dumps(value, ensure_ascii=ensure_ascii).encode()
    assert parse_object(body, LIMITS) == json.loads(body)


@st.composite
def _edited(draw: st.DrawFn) -> bytes:
    """A valid object with a few bytes changed."""
    text = json.dumps(
        draw(st.dictionaries(_TEXT, _JSON, min_size=1, max_size=4)), ensure_ascii=False
    )
    body = bytearray(text.encode())
    at = draw(st.integers(0, len(body)))
    edit = st.text('{}[]":,\\u0dN1-e ', max_size=2).map(str.encode) | st.binary(max_size=2)
    body[at : at + draw(st.integers(0, 2))] = draw(edit)
    return bytes(body)


@pytest.mark.hypothesis
def test_any_bytes_give_an_object_or_one_kind_of_error() -> None:
    ended = Counter[str]()

    @examples(200, few=60)
    @given(_edited() | st.binary(max_size=200))
    def read(body: bytes) -> None:
        try:
            value = parse_object(body, LIMITS)
        except RequestError:
            ended["refused"] += 1
        else:
            ended["read"] += 1
            assert value == json.loads(body)

    read()
    assert min(ended["read"], ended["refused"]) > 3, ended


@given(
    st.lists(
        st.sampled_from(
            [
                *'{}[]:,"-\\ \n',
                *("null", "true", "NaN", "0.5", "1e400", "1e-400", "9" * 16, "9" * 25),
                *('"a"', "\\ud83d", "\\udc00", '"a\\ud83d"'),
            ]
        ),
        max_size=12,
    ).map("".join)
)
def test_any_text_in_messages_gives_what_it_says_or_one_kind_of_error(text: str) -> None:
    body = f'{{"messages": [{text}]}}'
    errors, value = [], None
    try:
        value = parse_object(body.encode(), LIMITS)
    except RequestError as error:
        errors.append((error.kind, error.reason))
    if errors:
        assert errors == [(Kind.INVALID_REQUEST, "invalid_json")]
    else:
        assert as_said(value) == as_said(json.loads(body, parse_float=str, parse_int=str))


def as_said(value: Any) -> Any:
    """With every number as a decimal, which tells apart what a float rounds."""
    if isinstance(value, dict):
        return {key: as_said(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_said(item) for item in value]
    try:
        return Decimal(str(value))
    except InvalidOperation:
        return value
