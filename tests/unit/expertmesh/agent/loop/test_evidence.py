"""Numbers of sources, and what an answer cites."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expertmesh.agent.loop.evidence import Citations, Ledger
from expertmesh.agent.tools.tool import Source
from tests.support.examples import examples


def ledger(count: int) -> Ledger:
    made = Ledger()
    for number in range(count):
        made.add(Source.of(f"file{number}", f"text {number}"))
    return made


@examples(many=200)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz")), max_size=12))
def test_a_source_has_one_number_and_numbers_have_no_gaps(read: list[tuple[str, str]]) -> None:
    made = Ledger()
    numbers = {one: made.add(Source.of(*one)) for one in read}
    again = {one: made.add(Source.of(*one)) for one in read}
    assert numbers == again
    assert sorted(numbers.values()) == list(range(1, len(set(read)) + 1))
    for (place, text), number in numbers.items():
        assert (made.sources[number - 1].place, made.sources[number - 1].excerpt) == (place, text)


@pytest.mark.parametrize(
    ("answer", "known", "unknown"),
    [
        ("It is so [1].", (1,), ()),
        ("Both [2][1], and [1, 3]", (2, 1, 3), ()),
        ("人口是三百万[1]，面积[2，3]。", (1, 2, 3), ()),
        ("It says so [4] [0]", (), (4, 0)),
        ("in code `xs[4]` and\n```\ny[5]\n```\n[3]", (3,), ()),
        ("a link [1](http://x) is none", (), ()),
        ("[x] [] [1.5] [-1]", (), ()),
    ],
)
def test_citations(answer: str, known: tuple[int, ...], unknown: tuple[int, ...]) -> None:
    assert ledger(3).citations(answer) == Citations(known, unknown)


def test_without_sources_nothing_is_a_citation() -> None:
    assert Ledger().citations("see [1]") == Citations((), ())


def test_a_line_of_the_list() -> None:
    made = Ledger()
    made.add(Source.of("a.py:1-2", "x = 1\n  y = 2"))
    assert made.line(1) == "[1] a.py:1-2: x = 1 y = 2"
