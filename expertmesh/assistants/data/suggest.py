"""Which questions about a file are worth asking? As data, each with the command that asks it."""

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from expertmesh.agent.tools.tool import object_schema
from expertmesh.agent.web.marking import marked, visible
from expertmesh.assistants.asking.model import TextModel
from expertmesh.assistants.asking.structured import UselessAnswerError, ask_json
from expertmesh.assistants.prompts import prompt
from expertmesh.assistants.tables.cells import shown_cell
from expertmesh.assistants.tables.describe import describe
from expertmesh.assistants.tables.profile import Profile
from expertmesh.assistants.watch import Watching

_MOST_CHARS = 300
_MOST_COLUMNS = 10
"""Bounds for a small model that is forced into this form, and would not stop by itself."""


class Chart(StrEnum):
    """How an answer is best shown."""

    NONE = "none"
    BAR = "bar"
    BOX = "box"
    HEATMAP = "heatmap"
    HISTOGRAM = "histogram"
    LINE = "line"
    SCATTER = "scatter"


@dataclass(frozen=True)
class Suggestion:
    """A question that the file's columns can answer."""

    question: str
    why: str
    columns: tuple[str, ...]
    """Each of them is in the file."""
    chart: Chart

    def command(self, file: Path, number: int) -> str:
        """What to type to have it answered."""
        words = ["expertmesh", "data", "analyse", str(file), self.question]
        return shlex.join([*words, "--out", f"analysis-{number}"])

    def as_json(self, file: Path, number: int) -> dict[str, Any]:
        return {**asdict(self), "command": self.command(file, number)}


@dataclass(frozen=True)
class Suggestions:
    """The useful ones, and how many were left out."""

    found: Sequence[Suggestion]
    left_out: int
    """They name columns that there are not."""
    completion_tokens: int


async def suggest(
    model: TextModel,
    profile: Profile,
    *,
    number: int = 5,
    about: str = "",
    language: str = "en",
    watching: Watching | None = None,
) -> Suggestions:
    """At most `number`. `about`: what they should be about, in the user's words.

    Raises ChatError and UselessAnswerError.
    """
    watching = watching or Watching()
    watching.begins("thinking of questions")
    told = prompt(
        "suggest",
        language,
        number=number,
        about=f"{about.strip()}\n\n" if about.strip() else "",
        profile=marked(describe(profile, language), f"the file {profile.name}"),
    )
    question = [{"role": "user", "content": told}]
    values, answer = await ask_json(
        model, question, _schema(number), language=language, on_piece=watching.piece
    )
    watching.answered(answer.reply)
    names = {one.name for one in profile.columns}
    fitting = [one for one in values if {shown_cell(name) for name in one["columns"]} <= names]
    if not fitting:
        raise UselessAnswerError("the model suggested nothing that the file's columns can answer")
    found = [
        Suggestion(
            _sentence(one["question"]),
            _sentence(one["why"]),
            tuple(map(shown_cell, one["columns"])),
            Chart(one["chart"]),
        )
        for one in fitting[:number]
    ]
    return Suggestions(found, len(values) - len(fitting), answer.reply.completion_tokens)


def _sentence(text: str) -> str:
    """In one line that no shell takes for a flag, without what a terminal would not show."""
    return " ".join(visible(text).split()).lstrip("-").strip() or "?"


def _schema(number: int) -> dict[str, Any]:
    text = {"type": "string", "minLength": 1, "maxLength": _MOST_CHARS}
    item = object_schema(
        {
            "question": text,
            "why": text,
            "columns": {"type": "array", "items": text, "maxItems": _MOST_COLUMNS},
            "chart": {"type": "string", "enum": [one.value for one in Chart]},
        }
    )
    return {"type": "array", "items": item, "maxItems": number}
