"""Is the model's next step right, given everything before it as it should have been?"""

import json
import random
from dataclasses import dataclass
from typing import Any

from demo_model import chat
from demo_model.chat import Conversation
from demo_model.draw import Draw, Split
from demo_model.judging import asserted
from demo_model.judging.replies import Said
from demo_model.phrasings import LANGUAGES
from demo_model.tasks.families import FAMILIES, OF_TEMPLATES


@dataclass(frozen=True, kw_only=True)
class Step:
    """One turn of a conversation that the model has to take."""

    family: str
    language: str
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]]
    wanted: dict[str, Any]
    facts: dict[str, Any]

    @property
    def prompt(self) -> list[chat.Segment]:
        """The text up to where the model writes."""
        made = Conversation(
            skill="", language="", messages=[*self.messages, self.wanted], tools=self.tools
        )
        return [(text, False) for text, _ in chat.render(made)[:-1]]


def steps_of(made: Conversation) -> list[Step]:
    """Every turn that is trained on."""
    last_user = max(i for i, message in enumerate(made.messages) if message["role"] == "user")
    return [
        Step(
            family=made.skill,
            language=made.language,
            messages=made.messages[:index],
            tools=made.tools,
            wanted=message,
            facts=made.facts,
        )
        for index, message in enumerate(made.messages)
        if index > last_user and message["role"] == "assistant" and not message.get("given")
    ]


def draw(split: Split, per_family: int, seed: int = 0) -> list[Step]:
    """`per_family` conversations of each family and language, and of each one turn."""
    found = []
    for family, make in FAMILIES.items():
        if split is Split.TEMPLATES and family not in OF_TEMPLATES:
            continue
        for language in LANGUAGES:
            rng = random.Random(f"steps-{split.value}-{family}-{language}-{seed}")
            for _ in range(per_family):
                made = make(Draw(rng=rng, language=language, split=split))
                found.append(rng.choice(steps_of(made)))
    return found


def is_right(step: Step, said: Said) -> bool:
    """Equal calls, or what the family counts as an equal answer."""
    wanted = [
        (call["function"]["name"], {k: _text(v) for k, v in call["function"]["arguments"].items()})
        for call in step.wanted.get("tool_calls", ())
    ]
    if wanted or said.calls is None:
        return list(said.calls or ()) == wanted and bool(wanted)
    if said.calls:
        return False
    if step.family == "review":
        return _findings(said.content) == [tuple(one) for one in step.facts["lines"]]
    if step.family == "write_tests":
        return asserted.are_right(said.content, step.facts)
    return said.content.strip() == chat.plain(step.wanted["content"]).strip()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _findings(content: str) -> list[tuple[Any, Any]] | None:
    """(line, kind) of each finding, or None if it is not a list of such."""
    try:
        return [(one["line"], one["kind"]) for one in json.loads(content)]
    except (ValueError, TypeError, KeyError):
        return None


Table = dict[str, dict[str, list[int]]]
"""family -> language -> [right, asked]"""


def tally(pairs: list[tuple[Step, Said]]) -> Table:
    table: Table = {}
    for step, said in pairs:
        cell = table.setdefault(step.family, {}).setdefault(step.language, [0, 0])
        cell[0] += is_right(step, said)
        cell[1] += 1
    return table
