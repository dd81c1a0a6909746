"""The answers and worked steps in the training data are true."""

import calendar
import datetime
import random
import re

import pytest

from demo_model import chat
from demo_model.draw import Draw, Turn
from demo_model.skills import SKILLS, arithmetic, smalltalk

LANGUAGES = ("en", "zh")
EQUATION = re.compile(r"(?<![\d.])(\d+(?:[-+×]\d+)*)=(\d+)(?![\d×+-])")
EPOCH = datetime.date(2023, 1, 2)  # a Monday in a common year
WEEKDAYS = {
    name: i
    for i, name in enumerate(
        ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
    )
}


def turns(skill: str, language: str, count: int = 200) -> list[Turn]:
    rng = random.Random(f"{skill}-{language}")
    return [SKILLS[skill](Draw(rng=rng, language=language)) for _ in range(count)]


def value_of(expression: str) -> int:
    """The value of digits joined by +, - and ×, strictly from left to right after products."""
    total = 0
    for sign, term in re.findall(r"([-+]?)([\d×]+)", expression):
        product = 1
        for factor in term.split("×"):
            product *= int(factor)
        total += -product if sign == "-" else product
    return total


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("skill", ["add", "subtract", "multiply"])
def test_every_equation_in_the_working_is_true(skill: str, language: str) -> None:
    seen = 0
    for turn in turns(skill, language):
        for left, right in EQUATION.findall(turn.thinking):
            assert value_of(left) == int(right), turn
            seen += 1
    assert seen > 200


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("operation", ["add", "subtract", "multiply"])
def test_arithmetic_states_the_right_result_and_its_working_ends_in_it(
    operation: str, language: str
) -> None:
    for turn in turns(operation, language):
        found = re.fullmatch(r"(\d+) ([-+×]) (\d+) = (-?\d+)", turn.answer)
        assert found
        a, b, result = int(found[1]), int(found[3]), int(found[4])
        assert result == arithmetic.apply(operation, a, b) == turn.value
        assert turn.thinking.endswith(str(result))
        assert arithmetic.in_head(operation, a, b)
        assert str(a) in turn.user
        assert str(b) in turn.user


@pytest.mark.parametrize(
    ("operation", "a", "b", "working"),
    [
        ("add", 347, 58, "347+58\n7+8=15, carry 1: 5\n4+5+1=10, carry 1: 05\n3+0+1=4: 405"),
        ("add", 99, 1, "99+1\n9+1=10, carry 1: 0\n9+0+1=10, carry 1: 00\n1: 100"),
        (
            "subtract",
            42,
            17,
            "42-17\n4>1\n42>17\n2-7, borrow 1, 12-7=5: 5\n4-1-1=2: 25",
        ),
        (
            "subtract",
            5,
            12,
            "5-12\n5: 1 digits, 12: 2 digits, 1<2\n5<12\n12-5\n"
            "2-5, borrow 1, 12-5=7: 7\n1-0-1=0: 07\n07=7\n-7",
        ),
        ("multiply", 47, 6, "47×6\n7×6=42, carry 4: 2\n4×6=24, 24+4=28: 282"),
        ("multiply", 7, 8, "7×8\n7×8=56"),
    ],
)
def test_the_working_writes_out_every_carry_and_borrow(
    operation: str, a: int, b: int, working: str
) -> None:
    draw = Draw(rng=random.Random(0), language="en")
    assert arithmetic.think(draw, operation, a, b) == working


@pytest.mark.parametrize("language", LANGUAGES)
def test_sorting_orders_the_numbers_of_the_question(language: str) -> None:
    both = set()
    for turn in turns("sort", language):
        given = [int(x) for x in re.findall(r"\d+", turn.user)]
        answer = [int(x) for x in re.findall(r"\d+", turn.answer)]
        assert answer in (sorted(given), sorted(given, reverse=True))
        both.add(answer == sorted(given))
    assert both == {True, False}


@pytest.mark.parametrize("language", LANGUAGES)
def test_comparing_names_the_asked_extreme_or_says_equal(language: str) -> None:
    for turn in turns("compare", language):
        a, b = (int(x) for x in re.findall(r"\d+", turn.user))
        first, second = (int(x) for x in re.findall(r"\d+", turn.answer))
        assert {first, second} == {a, b}
        if a == b:
            assert "equal" in turn.answer or "相等" in turn.answer
        else:
            larger = "larger" in turn.answer or "大" in turn.answer
            assert first == (max(a, b) if larger else min(a, b))


@pytest.mark.parametrize("language", LANGUAGES)
def test_spelling_answers_are_made_of_the_word_asked_about(language: str) -> None:
    for turn in turns("reverse", language):
        assert chat.plain(turn.answer)[::-1] in turn.user
    for turn in turns("uppercase", language):
        answer = chat.plain(turn.answer)
        assert answer.isupper()
        assert answer.lower() in turn.user.lower()
        assert turn.answer.count(chat.TOKEN_BORDER) == len(answer) + 1


def test_counting_letters_counts_them() -> None:
    for turn in turns("count_letters", "en"):
        found = re.fullmatch(r"The letter (\w) appears (\d+) times?\.", turn.answer)
        if found is None:
            assert re.fullmatch(r"It has \d+ letters\.", turn.answer)
            continue
        spelt = turn.thinking.splitlines()[0].split(": ")[1]
        letters = re.findall(r"[a-z]", spelt)
        assert letters.count(found[1]) == int(found[2])
        assert "".join(letters) in turn.user.lower()


def test_weekdays_agree_with_the_calendar() -> None:
    for turn in turns("weekday", "en"):
        start = next(name for name in WEEKDAYS if name in turn.user)
        found = re.match(r"(\d+)=7×(\d+)\+(\d)\n", turn.thinking)
        assert found
        n = int(found[1])
        assert n == 7 * int(found[2]) + int(found[3])
        end = turn.answer.removeprefix("It is ").rstrip(".")
        ends = {
            (EPOCH + datetime.timedelta(WEEKDAYS[start] + sign * n)).strftime("%A")
            for sign in (1, -1)
        }
        assert end in ends


def test_dates_agree_with_the_calendar() -> None:
    months = list(calendar.month_name)
    seen = set()
    for turn in turns("dates", "en", 600):
        if found := re.fullmatch(r"(\w+) (\d{4}) has (\d+) days\.", turn.answer):
            length = calendar.monthrange(int(found[2]), months.index(found[1]))[1]
            assert int(found[3]) == length
            seen.add("length")
        elif (start := re.search(r"([A-Z]\w+) (\d+)", turn.user)) and start[1] in months:
            end = re.fullmatch(r"It is (\w+) (\d+)\.", turn.answer)
            n = int(re.findall(r"\d+", turn.user.replace(start[0], ""))[0])
            assert end
            date = datetime.date(2023, months.index(start[1]), int(start[2]))
            shifted = [date + datetime.timedelta(sign * n) for sign in (1, -1)]
            assert f"{end[1]} {end[2]}" in [f"{d:%B} {d.day}" for d in shifted]
            seen.add("shift")
    assert seen == {"length", "shift"}


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_too_large_is_beyond_the_head(language: str) -> None:
    draw = Draw(rng=random.Random(1), language=language)
    for _ in range(200):
        operation, a, b = smalltalk.large_operands(draw)
        assert not arithmetic.in_head(operation, a, b)


def test_greetings_are_answered_in_kind() -> None:
    replies = {turn.user: turn.answer for turn in turns("greeting", "en", 500)}
    assert replies["Good morning!"].startswith("Good morning!")
    assert replies["Thanks"] == "You are welcome!"
    assert replies["Good night!"].startswith("Good night!")
