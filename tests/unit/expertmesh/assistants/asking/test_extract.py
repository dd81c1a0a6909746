"""Code and JSON are found in answers, whatever stands around them."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from expertmesh.assistants.asking.extract import blocks, code_of, json_of

PROSE = st.text(st.characters(exclude_characters="`~[]{}\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"))
CODE = st.text(st.sampled_from("abc =()[]\"'#:\n  `~"), min_size=1).filter(
    lambda text: text.strip() and "```" not in text and "~~~" not in text
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(PROSE, CODE, PROSE)
def test_a_fenced_block_is_found_in_any_prose(before: str, code: str, after: str) -> None:
    found = code_of(f"{before}\n```python\n{code}\n```\n{after}")
    assert found == f"{code}\n"


@given(PROSE, CODE)
def test_a_fence_that_never_ends_is_taken_to_the_end(before: str, code: str) -> None:
    assert code_of(f"{before}\n```python\n{code}") == code.removesuffix("\n") + "\n"


@given(st.text())
@example("```")
@example("~~~python\n```")
def test_any_text_has_a_list_of_blocks(text: str) -> None:
    found = blocks(text)
    assert all(one.is_closed for one in found[:-1])
    code = code_of(text)
    assert code is None or code in [one.text for one in found]


def test_the_longest_block_of_the_language_is_the_code() -> None:
    text = (
        "```sh\npip install a b c d e f g h\n```\n```py\nx = 1\n```\n```python\nx = 1\ny = 2\n```"
    )
    assert code_of(text) == "x = 1\ny = 2\n"


def test_a_block_without_a_language_serves_where_none_names_it() -> None:
    assert code_of("```sh\nls -l\n```\n```\nx = 1\n```") == "x = 1\n"
    assert code_of("```sh\nls -l\n```") is None
    assert code_of("x = 1") is None


def test_a_longer_fence_holds_a_shorter_one() -> None:
    assert code_of('````python\ntext = """\n```\nno end\n```\n"""\n````') == (
        'text = """\n```\nno end\n```\n"""\n'
    )


@given(PROSE, st.lists(JSON) | st.dictionaries(st.text(), JSON), PROSE)
def test_an_object_or_array_is_found_in_any_prose(before: str, value: Any, after: str) -> None:
    assert json_of(f"{before}{json.dumps(value)}{after}") == value


@given(JSON, st.sampled_from(["```json\n{}\n```", "\n {} \n", "Here:\n```\n{}\n```\nDone."]))
def test_any_value_is_found_alone_and_in_a_fence(value: Any, form: str) -> None:
    assert json_of(form.replace("{}", json.dumps(value), 1)) == value


@given(st.text())
@example("[" * 5000)
@example('{"a":' * 5000)
def test_any_text_gives_a_value_or_says_that_there_is_none(text: str) -> None:
    with contextlib.suppress(ValueError):
        json.dumps(json_of(text))


def test_the_longest_value_counts() -> None:
    text = 'The form is [] or {"line": 1}. Mine: [{"line": 3, "kind": "name"}, {"line": 4}]'
    assert json_of(text) == [{"line": 3, "kind": "name"}, {"line": 4}]


@pytest.mark.parametrize("text", ["", "nothing", "[1, 2", "{'a': 1}", "NaN", "[Infinity]"])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no JSON"):
        json_of(text)
