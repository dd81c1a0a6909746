"""Answers as JSON are valid, have the requested keys, and are true."""

import json
import random

import pytest

from demo_model import chat, phrasings
from demo_model.draw import Draw, Split
from demo_model.skills import SKILLS

LANGUAGES = phrasings.LANGUAGES


@pytest.mark.parametrize("split", Split)
@pytest.mark.parametrize("language", LANGUAGES)
def test_an_answer_is_one_json_object_with_the_keys_of_the_question(
    language: str, split: Split
) -> None:
    draw = Draw(rng=random.Random(f"json-{language}"), language=language, split=split)
    sizes = set()
    for _ in range(200):
        turn = SKILLS["json"](draw)
        found = json.loads(chat.plain(turn.answer))
        assert list(found) == ["answer"] or all(key in turn.user for key in found)
        assert all(isinstance(value, int | str | list) for value in found.values())
        sizes.add(len(found))
    assert {1, 2, 3} <= sizes


def test_the_answer_is_the_working_s_result() -> None:
    draw = Draw(rng=random.Random(0), language="en")
    for skill in ("add", "count_letters", "reverse", "weekday", "sort", "compare"):
        for _ in range(50):
            turn = SKILLS[skill](draw)
            result = turn.facts["answer"]
            shown = ", ".join(map(str, result)) if isinstance(result, list) else str(result)
            assert chat.plain(shown) in chat.plain(turn.answer)


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_listed_as_trained_moves_nothing_across_the_line(language: str) -> None:
    numbered = phrasings.load("identity")[language]
    further = phrasings.load("identity")[language + phrasings.TRAINED]
    assert phrasings.select("identity", language, held_out=True) == numbered[4::5]
    trained = phrasings.select("identity", language, held_out=False)
    assert set(trained) == set(numbered) - set(numbered[4::5]) | set(further)
