"""Passages together are the text, with the right lines."""

from hypothesis import given
from hypothesis import strategies as st

from expertmesh.agent.retrieval.passages import PASSAGE_CHARS, passages


@given(st.lists(st.text(alphabet="ab# \u4e2d", max_size=2000), max_size=20).map("\n".join))
def test_nothing_but_blanks_is_lost_and_lines_are_right(text: str) -> None:
    lines = text.split("\n")
    found = list(passages(text))
    assert "".join("".join(one.text.split()) for one in found) == "".join(text.split())
    for one in found:
        assert len(one.text) <= PASSAGE_CHARS
        assert one.text in "\n".join(lines[one.first_line - 1 : one.last_line])


def test_a_passage_ends_before_a_heading() -> None:
    text = "# One\n" + "word " * 150 + "\n# Two\nshort"
    assert [(one.first_line, one.last_line) for one in passages(text)] == [(1, 2), (3, 4)]


def test_short_paragraphs_stay_together() -> None:
    assert len(list(passages("a\n\nb\n\nc"))) == 1
