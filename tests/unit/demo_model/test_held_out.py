"""Nothing held out is trained on, and both sides have enough examples."""

import random

import pytest

from demo_model import phrasings
from demo_model.conversation import WEIGHTS, make
from demo_model.draw import Draw, Split, is_held_out
from demo_model.skills import SKILLS, arithmetic

LANGUAGES = phrasings.LANGUAGES


def draw(split: Split = Split.TRAIN, language: str = "en", seed: int = 0) -> Draw:
    return Draw(rng=random.Random(seed), language=language, split=split)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("skill", phrasings.skills())
def test_every_skill_has_thirty_wordings_and_holds_out_a_fifth(skill: str, language: str) -> None:
    everything = phrasings.load(skill)[language]
    held_out = phrasings.select(skill, language, held_out=True)
    trained = phrasings.select(skill, language, held_out=False)
    assert len(everything) >= (30 if skill in SKILLS else 10)
    assert len({wording for _, wording in everything}) == len(everything)
    assert len(held_out) == len(everything) // 5
    assert {tag for tag, _ in trained} == {tag for tag, _ in everything}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("skill", phrasings.skills())
def test_a_trained_wording_is_never_a_held_out_one(skill: str, language: str) -> None:
    reserved = phrasings.reserved(skill, language)
    source = draw(language=language)
    wordings = {phrasings.gist(source.phrase(skill)[1]) for _ in range(500)}
    assert not wordings & reserved


@pytest.mark.parametrize("operation", ["add", "subtract", "multiply"])
def test_operands_stay_on_their_side(operation: str) -> None:
    for split in Split:
        source = draw(split)
        for _ in range(200):
            a, b = arithmetic.operands(source, operation)
            assert is_held_out(operation, a, b) == (split is Split.OPERANDS)


def test_an_impossible_side_is_refused_instead_of_searched_for_ever() -> None:
    with pytest.raises(ValueError, match="no operands on the operands side for x"):
        draw(Split.OPERANDS).operands(lambda: 1, lambda _: ("x", 1))


def test_the_hash_holds_out_about_one_in_eight() -> None:
    share = sum(is_held_out("add", a, b) for a in range(100) for b in range(100)) / 10_000
    assert 0.11 < share < 0.14


@pytest.mark.parametrize("split", Split)
@pytest.mark.parametrize("skill", WEIGHTS)
def test_every_skill_can_be_drawn_on_every_side(skill: str, split: Split) -> None:
    for language in LANGUAGES:
        for seed in range(20):
            conversation = make(draw(split, language, seed), skill)
            assert conversation.skill == skill
            assert conversation.messages[-1]["role"] == "assistant"


def test_alternatives_expand_to_each_of_their_choices() -> None:
    rng = random.Random(0)
    found = {phrasings.expand("[a|b] c[!|]", rng) for _ in range(100)}
    assert found == {"a c!", "a c", "b c!", "b c"} == set(phrasings.every("[a|b] c[!|]"))


def test_a_filler_keeps_away_from_the_slots() -> None:
    rng = random.Random(0)
    for _ in range(50):
        parts = phrasings.with_filler("How many times is {letter} in {word}?", rng).split(" ")
        for slot in ("{letter}", "{word}?"):
            before = parts[parts.index(slot) - 1]
            assert before not in phrasings.FILLERS
    assert phrasings.with_filler("Reverse {word}", rng) == "Reverse {word}"
