"""Which words, places and topics occur in the questions?"""

import random
import re
from functools import cache
from pathlib import Path

from demo_model import phrasings

FOLDER = Path(__file__).parent
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def _text(name: str) -> str:
    return (FOLDER / f"{name}.txt").read_text(encoding="utf-8")


@cache
def words() -> tuple[str, ...]:
    """English words for the letter skills."""
    return tuple(_text("words").split())


@cache
def listed(name: str, language: str) -> tuple[str, ...]:
    """The entries of `name` (places, topics, things, phrases): English line, Chinese line."""
    english, chinese = _text(name).splitlines()[:2]
    line = english if language == "en" else chinese
    return tuple(line.split("|") if "|" in line else line.split())


@cache
def _system_sentences() -> tuple[str, ...]:
    return tuple(_text("system_prompts").splitlines())


def system_prompt(rng: random.Random, *, long: bool = False) -> str:
    """One to three instructions, or many; sometimes random words instead."""
    count = rng.randint(4, 60) if long else rng.choice((1, 1, 1, 2, 3))
    sentences = rng.choices(_system_sentences(), k=count)
    if rng.random() < 0.15:
        sentences.append(" ".join(rng.choices(words(), k=rng.randint(2, 12))).capitalize() + ".")
    return " ".join(sentences)


@cache
def spelling_material() -> tuple[str, ...]:
    """Every Latin word that is likely to be one token; training must spell all of them."""
    text = " ".join(
        wording
        for skill in phrasings.skills()
        for section in phrasings.load(skill).values()
        for _, wording in section
    )
    text += _text("places") + _text("topics") + _text("things") + _text("system_prompts")
    for part in ("programs/template_lists/*.txt", "toolboxes/*.txt", "toolboxes/*.json"):
        for file in sorted(FOLDER.parent.glob(part)):
            text += file.read_text(encoding="utf-8")
    return words() + tuple(sorted(set(re.findall(r"[A-Za-z]{2,}", text))))


def invented_word(rng: random.Random, longest: int) -> str:
    """A word that is in no dictionary: pieces of known words, or random letters."""
    if rng.random() < 0.4:
        return "".join(rng.choices(LETTERS, k=rng.randint(2, min(9, longest))))
    material = spelling_material()
    word = ""
    for _ in range(rng.randint(1, 3)):
        source = rng.choice(material)
        start = rng.randrange(len(source))
        word += source[start : start + rng.randint(2, 7)]
    word = word[:longest]
    return word if len(word) > 1 else word + rng.choice(LETTERS)
