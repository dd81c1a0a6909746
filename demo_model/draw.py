"""How is one question drawn: which random numbers, which language, what is held out?

Operands and words are held out by a hash of what is asked, phrasings by their place in
their list (every fifth). A `Draw` is told which side of each line it must stay on, so
training and evaluation share every generator and can never meet.
"""

import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeVar

from demo_model import phrasings

HELD_OUT_ONE_IN = 8
MAX_TRIES = 10_000
FILLER_SHARE = 0.12

T = TypeVar("T")


class Split(Enum):
    """TRAIN has nothing held out; each other one has exactly one kind of held-out material."""

    TRAIN = "train"
    OPERANDS = "operands"
    PHRASINGS = "phrasings"
    TEMPLATES = "templates"


def is_held_out(*key: Any) -> bool:
    """Whether this question (a skill's name and its operands or words) is kept from training."""
    text = "|".join(map(str, key))
    return zlib.crc32(text.encode()) % HELD_OUT_ONE_IN == 0


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One question and the answer to it. `answer` alone is what evaluation compares."""

    user: str
    thinking: str
    answer: str
    value: int | None = None
    """The number that the answer states, when a follow-up question can build on it."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What a JSON answer can hold: "answer", and what was asked about, by its role there."""


@dataclass(frozen=True, kw_only=True)
class Draw:
    """The source of one question."""

    rng: random.Random
    language: str
    split: Split = Split.TRAIN

    @property
    def english(self) -> bool:
        return self.language == "en"

    def say(self, english: str, chinese: str) -> str:
        return english if self.english else chinese

    def phrase(self, skill: str, *, tags: tuple[str, ...] | None = None) -> tuple[str, str]:
        """A random (tag, template) of the skill, from this split's side of the line."""
        choices = phrasings.select(
            skill, self.language, held_out=self.split is Split.PHRASINGS, tags=tags
        )
        tag, wording = self._wording(skill, choices)
        if self.split is Split.TRAIN and self.english and self.rng.random() < FILLER_SHARE:
            wording = phrasings.with_filler(wording, self.rng)
        return tag, wording

    def _wording(self, skill: str, choices: tuple[tuple[str, str], ...]) -> tuple[str, str]:
        reserved = phrasings.reserved(skill, self.language)
        for _ in range(MAX_TRIES):
            tag, line = self.rng.choice(choices)
            wording = phrasings.expand(line, self.rng)
            if self.split is Split.PHRASINGS or phrasings.gist(wording) not in reserved:
                return tag, wording
        raise ValueError(f"every {self.language} wording of {skill} is held out")

    def operands(self, draw: Callable[[], T], key: Callable[[T], tuple[Any, ...]]) -> T:
        """The first of many draws that lies on this split's side of the hash."""
        wanted = self.split is Split.OPERANDS
        for _ in range(MAX_TRIES):
            value = draw()
            if is_held_out(*key(value)) == wanted:
                return value
        raise ValueError(f"no operands on the {self.split.value} side for {key(draw())[0]}")
