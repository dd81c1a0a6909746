"""Numbers of a text that stand nowhere in its sources are found, and no others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expertmesh.assistants.data.claims import numbers_in, unfounded, with_marks
from tests.support.examples import examples


def unfounded_in(text: str, *sources: str) -> list[str]:
    return [one.text for one in unfounded(text, sources)]


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("The mean is 3.14.", "mean: 3.14159"),
        ("The mean is 3.", "mean: 3.14159"),
        ("It fell by 3.2.", "change: -3.2"),
        ("12.3 % of them", "share: 0.1234"),
        ("12% of them", "share: 12.3%"),
        ("a share of 0.12", "share: 12.3%"),
        ("1,234,567 rows", "rows: 1234567"),
        ("about 1.2 million", "total: 1234567"),
        ("\u7ea6123.5\u4e07\u5143", "total: 1234567"),
        ("rounded half up: 2.5 is 3", "2.5"),
        ("rounded half down: 2.5 is 2", "2.5"),
        ("1e6 rows", "rows: 1000000"),
        ("on 2024-01-31", "last: 2024-01-31"),
        ("Q1 of column3 in v2", "nothing"),
        ("1. Oslo\n2) Rome\n3\u3001Bergen", "nothing"),
        ("no numbers", ""),
    ],
)
def test_numbers_of_the_sources_are_found(text: str, source: str) -> None:
    assert unfounded_in(text, source) == []


@pytest.mark.parametrize(
    ("text", "source", "missing"),
    [
        ("The mean is 3.15.", "mean: 3.14159", ["3.15"]),
        ("It rose by 42 %.", "Oslo: 3.5", ["42 %"]),
        ("1.3 million", "1234567", ["1.3 million"]),
        ("1,200 of them", "1234", ["1,200"]),
        ("10 and 20", "10", ["20"]),
        ("2.50", "2.49", ["2.50"]),
        ("\u5e73\u5747\u662f1.75\uff0c\u5dee15.5\u3002", "1.75", ["15.5"]),
        ("\u5171120\u4e07\u884c", "1300000", ["120\u4e07"]),
    ],
)
def test_others_are_not(text: str, source: str, missing: list[str]) -> None:
    assert unfounded_in(text, source) == missing


def test_several_sources_count_together() -> None:
    assert unfounded_in("5 of 7 in 2024", "five: 5", "goal: 2024") == ["7"]


def test_marks_follow_the_numbers() -> None:
    text = "It is 5, or 6 %."
    assert with_marks(text, unfounded(text, ["5"]), "made up") == "It is 5, or 6 % [made up]."


@given(st.floats(-1e9, 1e9), st.integers(0, 6))
@examples(300)
def test_any_rounding_of_a_number_is_found(number: float, digits: int) -> None:
    assert unfounded_in(f"it is {number:.{digits}f}", f"value={number!r}") == []
    assert unfounded_in(f"it is {number:,.{digits}f}", f"value={number!r}") == []


@given(st.integers(0, 10**12), st.integers(0, 10**12))
@examples(300)
def test_whole_numbers_are_found_only_if_they_are_the_same(claimed: int, printed: int) -> None:
    assert bool(unfounded_in(f"it is {claimed}", f"value {printed}")) == (claimed != printed)


@given(st.text(max_size=60))
@examples(200)
def test_any_text_is_taken_apart_and_put_together(text: str) -> None:
    numbers = numbers_in(text)
    assert all(text[one.start : one.end] == one.text for one in numbers)
    assert with_marks(text, numbers, "x").replace(" [x]", "") == text.replace(" [x]", "")
    assert unfounded(text, [text]) == []
