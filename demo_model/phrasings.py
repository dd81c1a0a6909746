"""Which wordings does a skill know, and which of them are held out?

`phrasing_lists/<skill>.txt` has one wording a line under `[en]` and `[zh]`; text before
a `| ` is the tag that says which variant of the skill the wording asks for. Every fifth
wording of a language (the 5th, 10th, ...) is never trained on.
"""

from functools import cache
from pathlib import Path

FOLDER = Path(__file__).with_name("phrasing_lists")
HELD_OUT_EVERY = 5
LANGUAGES = ("en", "zh")

Phrasing = tuple[str, str]


@cache
def load(skill: str) -> dict[str, tuple[Phrasing, ...]]:
    """All (tag, wording) pairs of a skill by language, in file order."""
    found: dict[str, list[Phrasing]] = {}
    language = ""
    for line in (FOLDER / f"{skill}.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            language = line.strip("[]")
            found[language] = []
        elif line.strip():
            tag, bar, wording = line.partition("| ")
            found[language].append((tag, wording) if bar else ("", line))
    return {language: tuple(pairs) for language, pairs in found.items()}


@cache
def select(
    skill: str, language: str, *, held_out: bool, tags: tuple[str, ...] | None = None
) -> tuple[Phrasing, ...]:
    """The wordings on one side of the line, optionally of some tags only."""
    return tuple(
        pair
        for index, pair in enumerate(load(skill)[language])
        if (index % HELD_OUT_EVERY == HELD_OUT_EVERY - 1) == held_out
        and (tags is None or pair[0] in tags)
    )


def skills() -> tuple[str, ...]:
    """Every skill that has a list of wordings."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.txt")))
