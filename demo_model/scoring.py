"""When is an answer right? Exact equality of content, or of the called code."""

import random
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from demo_model import chat
from demo_model.chat import Conversation
from demo_model.conversation import WEIGHTS, sample
from demo_model.draw import Split
from demo_model.phrasings import LANGUAGES

CALL = re.compile(
    re.escape(chat.TOOL_CALL)
    + r'\n<invoke name="python_executor">\n<parameter name="code">(.*?)</parameter>\n</invoke>\n'
    + re.escape(chat.END_OF_TOOL_CALL),
    re.DOTALL,
)


@dataclass(frozen=True, kw_only=True)
class Question:
    """A prompt and its only right answer: a text, or the code of a python_executor call."""

    skill: str
    language: str
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]]
    content: str
    code: str | None

    @property
    def text(self) -> str:
        """The last user message."""
        return next(m["content"] for m in reversed(self.messages) if m["role"] == "user")


@dataclass(frozen=True, kw_only=True)
class Reply:
    """The reply. `code` is None without a well-formed python_executor call."""

    content: str
    code: str | None
    called: bool
    """Whether a tool call was attempted."""


def question(conversation: Conversation) -> Question:
    *messages, answer = conversation.messages
    calls = answer.get("tool_calls")
    return Question(
        skill=conversation.skill,
        language=conversation.language,
        messages=messages,
        tools=conversation.tools,
        content=chat.plain(answer["content"]),
        code=calls[0]["function"]["arguments"]["code"] if calls else None,
    )


def questions(split: Split, per_skill: int, seed: int = 0) -> list[Question]:
    """`per_skill` questions for each skill and language."""
    found = []
    for skill in WEIGHTS:
        for language in LANGUAGES:
            rng = random.Random(f"evaluate-{split.value}-{skill}-{language}-{seed}")
            found += [question(sample(rng, split, skill, language)) for _ in range(per_skill)]
    return found


def read_completion(text: str) -> Reply:
    """The parts of a raw completion (thinking, content, call), as the gateway would find them."""
    _, end, rest = text.partition(chat.END_OF_THINK)
    if not end:
        return Reply(content="", code=None, called=False)
    content, called, _ = rest.partition(chat.TOOL_CALL)
    calls = CALL.findall(rest)
    code = calls[0] if len(calls) == 1 and CALL.sub("", rest).strip() == "" else None
    return Reply(content=content.strip("\n"), code=code, called=bool(called))


def is_right(asked: Question, reply: Reply) -> bool:
    if asked.code is not None:
        return reply.code == asked.code
    return not reply.called and reply.content.strip() == asked.content


Table = dict[str, dict[str, list[int]]]
"""skill -> language -> [right, asked]"""


def tally(pairs: Iterable[tuple[Question, Reply]]) -> Table:
    table: Table = defaultdict(lambda: defaultdict(lambda: [0, 0]))
    for asked, reply in pairs:
        cell = table[asked.skill][asked.language]
        cell[0] += is_right(asked, reply)
        cell[1] += 1
    return {skill: dict(sorted(table[skill].items())) for skill in WEIGHTS if skill in table}


def well_formed_calls(pairs: Iterable[tuple[Question, Reply]]) -> list[int]:
    """[well-formed calls, expected calls]"""
    due = [reply for asked, reply in pairs if asked.code is not None]
    return [sum(reply.code is not None for reply in due), len(due)]


def render_table(columns: dict[str, Table]) -> str:
    """One line per skill and language, one column per mode, percentages."""
    names = list(columns)
    lines = ["| skill | language | " + " | ".join(names) + " |", "|---" * (len(names) + 2) + "|"]
    rows = {skill: row for name in reversed(names) for skill, row in columns[name].items()}
    for skill, row in rows.items():
        for language in sorted(row):
            cells = []
            for name in names:
                right, asked = columns[name].get(skill, {}).get(language, [0, 0])
                cells.append(f"{100 * right / asked:.1f} %" if asked else "-")
            lines.append(f"| {skill} | {language} | " + " | ".join(cells) + " |")
    totals = []
    for name in names:
        cells_of = [cell for row in columns[name].values() for cell in row.values()]
        right, asked = (sum(cell[i] for cell in cells_of) for i in (0, 1))
        totals.append(f"{100 * right / asked:.1f} %" if asked else "-")
    lines.append("| all | both | " + " | ".join(totals) + " |")
    return "\n".join(lines)
