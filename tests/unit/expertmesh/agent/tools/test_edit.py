"""An edit replaces one place and no other, and leaves every other byte as it was."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expertmesh.agent.tools.edit import EditError, decoded, encoded, replaced_once
from tests.support.examples import examples

SHORT = st.text("ab\n", max_size=12)


def places(text: str, old: str) -> list[int]:
    return [at for at in range(len(text) - len(old) + 1) if text.startswith(old, at)]


@examples(many=500)
@given(SHORT, st.text("ab\n", min_size=1, max_size=4), SHORT)
def test_it_is_made_exactly_if_the_old_text_has_one_place(text: str, old: str, new: str) -> None:
    found = places(text, old)
    if len(found) != 1 or old == new:
        with pytest.raises(EditError):
            replaced_once(text, old, new, "a.txt")
        return
    edited = replaced_once(text, old, new, "a.txt")
    at = found[0]
    assert edited.text == text[:at] + new + text[at + len(old) :]
    assert edited.line == text[:at].count("\n") + 1


@examples(many=300)
@given(st.lists(st.text("ab", max_size=3), max_size=6), st.sampled_from(["\n", "\r\n"]))
def test_a_file_keeps_its_line_ends(lines: list[str], end: str) -> None:
    data = "".join(line + end for line in lines).encode()
    text = decoded(data, "a.txt")
    assert encoded(text.text, text) == data
    assert "\r" not in text.text


def test_mixed_line_ends_are_left_alone() -> None:
    data = b"a\r\nb\nc\r\n"
    text = decoded(data, "a.txt")
    assert encoded(replaced_once(text.text, "b", "x", "a").text, text) == b"a\r\nx\nc\r\n"


def test_an_edit_with_plain_line_ends_fits_a_file_of_windows() -> None:
    text = decoded(b"one\r\ntwo\r\nthree\r\n", "a.txt")
    edited = replaced_once(text.text, "one\ntwo", "1\n2", "a.txt")
    assert encoded(edited.text, text) == b"1\r\n2\r\nthree\r\n"


@pytest.mark.parametrize(
    ("old", "words"),
    [
        ("", "old_text is empty"),
        ("x = 1", "occurs 2 times in a.py (lines 1, 3)"),
        ("y  =  2", "line 2 differs from it in white space only"),
        ("x = 1\nz = 3", "its first line is in line 1, but what follows differs"),
        ("nothing", "does not occur in a.py: view the file"),
    ],
)
def test_a_refused_edit_says_what_to_do(old: str, words: str) -> None:
    with pytest.raises(EditError) as caught:
        replaced_once("x = 1\ny = 2\nx = 1\n", old, "new", "a.py")
    assert words in str(caught.value)


@pytest.mark.parametrize("data", [b"\xff\xfe\x00a", b"\x80", b"a\0b"])
def test_what_is_no_text_is_not_edited(data: bytes) -> None:
    with pytest.raises(EditError, match=r"^a\.bin: not "):
        decoded(data, "a.bin")
