"""What stays of a long text."""

import re

from hypothesis import given
from hypothesis import strategies as st

from expertmesh.agent.loop.clip import clipped
from tests.support.examples import examples

NOTE = re.compile(r"\n?\[\.\.\. ([\d,]+) characters left out \.\.\.\]\n")


@examples(many=400)
@given(st.text("ab\n\u4f60\U0001f600", max_size=200), st.integers(2, 120))
def test_head_and_tail_stay_and_the_middle_is_counted(text: str, limit: int) -> None:
    short = clipped(text, limit)
    if len(text.encode()) <= limit:
        assert short == text
        return
    found = NOTE.search(short)
    assert found
    head, tail = short[: found.start()], short[found.end() :]
    assert text.startswith(head)
    assert text.endswith(tail)
    assert len((head + tail).encode()) <= limit
    left_out = int(found[1].replace(",", ""))
    # a line end before the note may be the text's own
    assert left_out in (len(text) - len(head) - len(tail), len(text) - len(head) - len(tail) - 1)


def test_it_says_where_all_of_it_is() -> None:
    assert "; all of it: @outputs/1.txt ...]" in clipped("x" * 99, 10, full_text="@outputs/1.txt")


def test_cuts_are_between_lines_where_lines_are_short() -> None:
    text = "".join(f"line {number}\n" for number in range(1000))
    head, _, tail = clipped(text, 1000).partition("[...")
    assert head.endswith("\n")
    assert tail.partition("\n")[2].startswith("line ")
