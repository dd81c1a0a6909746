"""Stop strings: exact for every way of cutting, nothing shown early, nothing kept long."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_model.text.stop_strings import StopMatcher
from tests.support.examples import examples


def run(stops: list[str], pieces: list[str]) -> tuple[str, str | None]:
    matcher = StopMatcher(stops)
    shown = ""
    for piece in pieces:
        safe, matched = matcher.feed(piece)
        shown += safe
        if matched is not None:
            return shown, matched
    return shown + matcher.flush(), None


def expected(stops: list[str], text: str) -> tuple[str, str | None]:
    """By definition: the match that ends first; of those, the longest."""
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            longest = max(ending, key=len)
            return text[: end - len(longest)], longest
    return text, None


@pytest.mark.parametrize(
    ("stops", "text", "result"),
    [
        ([], "anything", ("anything", None)),
        (["STOP"], "go on STOP here", ("go on ", "STOP")),
        (["aab"], "aaab", ("a", "aab")),
        (["abcd", "bc"], "abcd", ("a", "bc")),
        (["bc", "abc"], "abc", ("", "abc")),
        (["ab"], "a", ("a", None)),
        (["\n\n"], "a\nb\n\nc", ("a\nb", "\n\n")),
        (["🙂é"], "x🙂🙂é", ("x🙂", "🙂é")),
        (["<think>"], "a<think>", ("a", "<think>")),
    ],
)
def test_text_ends_before_the_stop_string(stops: list[str], text: str, result: object) -> None:
    assert run(stops, [text]) == result
    assert run(stops, list(text)) == result


@examples(300)
@given(
    stops=st.lists(st.text(alphabet="ab", min_size=1, max_size=5), max_size=4),
    text=st.text(alphabet="abc", max_size=40),
    data=st.data(),
)
def test_cuts_never_matter(stops: list[str], text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    borders = [0, *cuts, len(text)]
    pieces = [text[a:b] for a, b in pairwise(borders)]
    assert run(stops, pieces) == expected(stops, text)


@examples(100)
@given(
    stops=st.lists(st.text(alphabet="ab", min_size=1, max_size=5), min_size=1, max_size=4),
    text=st.text(alphabet="abc", max_size=30),
)
def test_only_a_possible_beginning_is_held_back(stops: list[str], text: str) -> None:
    matcher = StopMatcher(stops)
    shown = ""
    for count, character in enumerate(text, start=1):
        safe, matched = matcher.feed(character)
        shown += safe
        if matched is not None:
            return
        held = text[len(shown) : count]
        assert not held or any(stop.startswith(held) for stop in stops)


def test_nothing_is_shown_after_a_match() -> None:
    matcher = StopMatcher(["x"])
    assert matcher.feed("axb") == ("a", "x")
    assert matcher.feed("more") == ("", "x")
    assert matcher.flush() == ""


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        StopMatcher(["a", ""])
