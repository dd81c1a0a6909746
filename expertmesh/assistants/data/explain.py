"""What is in a file, in words? And what is a concept of statistics?

What is said of a file comes from its profile; numbers that are not in that are marked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from expertmesh.agent.web.marking import marked
from expertmesh.assistants.asking.model import TextModel
from expertmesh.assistants.asking.structured import UselessAnswerError, whole
from expertmesh.assistants.data.claims import Number, unfounded
from expertmesh.assistants.prompts import prompt
from expertmesh.assistants.tables.cells import quoted
from expertmesh.assistants.tables.columns import Column
from expertmesh.assistants.tables.describe import describe, details, summary
from expertmesh.assistants.tables.profile import Profile
from expertmesh.assistants.watch import Watching


class Level(StrEnum):
    """For whom a concept is explained."""

    BEGINNER = "beginner"
    INTERMEDIATE = "intermediate"
    ADVANCED = "advanced"


@dataclass(frozen=True)
class Explanation:
    """In the model's words."""

    text: str
    unfounded: Sequence[Number] = ()
    """Numbers that are not in the profile; of a concept, nothing is checked."""
    completion_tokens: int = 0


async def explain_file(
    model: TextModel,
    profile: Profile,
    *,
    column: Column | None = None,
    language: str = "en",
    watching: Watching | None = None,
) -> Explanation:
    """Of the whole file, or of a column. Raises ChatError and UselessAnswerError."""
    if column is None:
        facts = describe(profile, language)
        told = prompt("explain_file", language, profile=marked(facts, f"the file {profile.name}"))
    else:
        named = f"{quoted(column.name)}: {'; '.join(details(column, language))}"
        facts = f"{summary(profile, language)}\n{named}"
        shown = marked(facts, f"the file {profile.name}")
        told = prompt("explain_column", language, profile=shown, column=quoted(column.name))
    explained = await ask_text(model, told, watching or Watching())
    return Explanation(
        explained.text, unfounded(explained.text, [facts]), explained.completion_tokens
    )


async def explain_concept(
    model: TextModel,
    concept: str,
    *,
    level: Level = Level.BEGINNER,
    language: str = "en",
    watching: Watching | None = None,
) -> Explanation:
    """Raises ChatError and UselessAnswerError."""
    audience = prompt(f"level_{level.value}", language)
    told = prompt("explain_concept", language, concept=concept, audience=audience)
    return await ask_text(model, told, watching or Watching())


async def ask_text(model: TextModel, told: str, watching: Watching) -> Explanation:
    """Whatever the model says to this. Raises ChatError and UselessAnswerError."""
    watching.begins("explaining")
    answer = await model.ask([{"role": "user", "content": told}], on_piece=watching.piece)
    text = whole(answer).text.strip()
    watching.answered(answer.reply)
    if not text:
        raise UselessAnswerError("the model's answer is empty")
    return Explanation(text, completion_tokens=answer.reply.completion_tokens)
