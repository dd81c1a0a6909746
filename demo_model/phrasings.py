"""Which wordings does a skill have, and which of them are held out?

`phrasing_lists/<skill>.txt` has one wording a line under `[en]` and `[zh]`; text before
a `| ` is the tag that says which variant of the skill the wording asks for; `[a|b]` in a
wording stands for either. Every fifth wording of a language (the 5th, 10th, ...) is never
trained on. Under `[en, trained]` and `[zh, trained]` nothing is held out: a list grows
there without moving the line between the two sides.
"""

import itertools
import random
import re
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).with_name("phrasing_lists")
HELD_OUT_EVERY = 5
LANGUAGES = ("en", "zh")
TRAINED = ", trained"
HEADERS = tuple(f"[{language}{part}]" for language in LANGUAGES for part in ("", TRAINED))
FILLERS = [
    "just",
    "really",
    "simply",
    "kindly",
    "maybe",
    "here",
    "actually",
    "exactly",
    "quickly",
    "also",
    "then",
    "now",
    "all",
    "correctly",
    "my",
    "our",
    "this",
    "that",
    "finally",
    "carefully",
    "again",
    "perhaps",
    "only",
    "even",
    "ever",
    "once",
    "indeed",
    "properly",
]
CHOICE = re.compile(r"\[([^\[\]]*)\]")

Phrasing = tuple[str, str]


@cache
def load(skill: str) -> dict[str, tuple[Phrasing, ...]]:
    """All (tag, wording) pairs of a skill by section of its file, in file order."""
    found: dict[str, list[Phrasing]] = {}
    section = ""
    for line in (FOLDER / f"{skill}.txt").read_text(encoding="utf-8").splitlines():
        if line in HEADERS:
            section = line.strip("[]")
            found[section] = []
        elif line.strip():
            tag, bar, wording = line.partition("| ")
            found[section].append((tag, wording) if bar else ("", line))
    return {section: tuple(pairs) for section, pairs in found.items()}


@cache
def select(
    skill: str, language: str, *, held_out: bool, tags: tuple[str, ...] | None = None
) -> tuple[Phrasing, ...]:
    """The wordings that are held out or those that are not, optionally of some tags only."""
    chosen = [
        pair
        for index, pair in enumerate(load(skill)[language])
        if (index % HELD_OUT_EVERY == HELD_OUT_EVERY - 1) == held_out
    ]
    if not held_out:
        chosen += load(skill).get(language + TRAINED, ())
    return tuple(pair for pair in chosen if tags is None or pair[0] in tags)


def expand(wording: str, rng: random.Random) -> str:
    """One of the wordings that a line with `[a|b]` stands for."""
    if "[" not in wording:
        return wording
    return CHOICE.sub(lambda found: rng.choice(found[1].split("|")), wording)


def every(wording: str) -> tuple[str, ...]:
    """All the wordings that a line with `[a|b]` stands for."""
    parts = [
        part.split("|") if index % 2 else [part] for index, part in enumerate(CHOICE.split(wording))
    ]
    return tuple("".join(chosen) for chosen in itertools.product(*parts))


def gist(wording: str) -> str:
    """The wording without case and without punctuation around it."""
    return wording.lower().strip(" .?!。？！")


@cache
def reserved(skill: str, language: str) -> frozenset[str]:
    """The gist of every held-out wording; no trained line may expand to one of them."""
    held_out = select(skill, language, held_out=True)
    return frozenset(gist(each) for _, wording in held_out for each in every(wording))


def with_filler(wording: str, rng: random.Random) -> str:
    """The wording with an extra word that does not change its meaning, not next to a slot."""
    parts = wording.split(" ")
    places = [i for i in range(1, len(parts)) if "{" not in parts[i - 1] and "{" not in parts[i]]
    if not places:
        return wording
    parts.insert(rng.choice(places), rng.choice(FILLERS))
    return " ".join(parts)


def skills() -> tuple[str, ...]:
    """Every skill that has a list of wordings."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.txt")))
