"""The agent speaks to the model in the language of the task."""

import dataclasses
import json
import string
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from expertmesh.agent import prompts
from expertmesh.agent.loop.approval import Answer, Approve, Question
from expertmesh.agent.loop.hints import Hints, hints_for, hints_in
from expertmesh.agent.loop.turn import OnPiece
from expertmesh.agent.record.past import read_earlier
from expertmesh.agent.session import Session, Settings
from expertmesh.clients.chat import Reply
from tests.support.expertmesh.plain_sandbox import PlainSandbox

FIELDS = [one.name for one in dataclasses.fields(Hints)]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_each_language_has_each_text_once(language: str) -> None:
    text = files(prompts).joinpath(f"hints.{language}.txt").read_text(encoding="utf-8")
    assert [line.partition(": ")[0] for line in text.splitlines()] == FIELDS


@pytest.mark.parametrize("name", FIELDS)
def test_all_languages_say_the_same(name: str) -> None:
    english, chinese = (getattr(hints_in(one), name) for one in ("en", "zh"))
    wanted, found = (
        {field for _, field, _, _ in string.Formatter().parse(text)} for text in (english, chinese)
    )
    assert found == wanted
    assert english.count("\n") == chinese.count("\n")
    assert english.isascii()
    assert prompts.language_of(chinese.replace("{", " ").replace("}", " ")) == "zh"


def call(name: str, arguments: dict[str, Any], number: int) -> Reply:
    function = {"name": name, "arguments": json.dumps(arguments)}
    made = {"id": f"call_{number}", "type": "function", "function": function}
    return Reply(tool_calls=[made], finish_reason="tool_calls")


class Scripted:
    """Gives these answers, and remembers what it read last."""

    def __init__(self, *replies: Reply):
        self._replies = iter(replies)
        self.read: list[str] = []

    async def ask(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]], on_piece: OnPiece
    ) -> Reply:
        self.read.append(messages[-1]["content"])
        return next(self._replies)


async def refuse(question: Question) -> Answer:
    return Answer.NO if "secret" in str(question.arguments) else Answer.YES


@pytest.mark.parametrize(("task", "language"), [("fix it", "en"), ("请修好它", "zh")])
async def test_a_run_is_spoken_to_in_its_language(tmp_path: Path, task: str, language: str) -> None:
    work = tmp_path / "work"
    work.mkdir()
    model = Scripted(
        Reply(content="I", finish_reason="length"),
        call("no_tool", {}, 1),
        call("shell", {"command": "secret"}, 2),
        Reply(content="", finish_reason="stop"),
        call("shell", {"command": "echo x"}, 3),
        call("shell", {"command": "echo x"}, 4),
        Reply(content="done", finish_reason="stop"),
        call("shell", {"command": "touch made; seq 200"}, 5),
        Reply(content="done", finish_reason="stop"),
    )
    settings = Settings(
        work_dir=work, check="ls made", approve=Approve.ASK, language=prompts.language_of(task)
    )
    with Session(
        model, settings, state=tmp_path / "state", sandbox=PlainSandbox(work), ask=refuse
    ) as session:
        await session.run(task)
    hints = hints_in(language)
    told = model.read
    assert told[1] == hints.cut
    assert told[2].startswith(hints.not_called.partition("{")[0])
    assert told[3] == hints.refused
    assert told[4] == hints.empty
    assert told[6].splitlines()[1] == hints.repeated
    assert told[7].startswith(hints.check_failed.partition("{")[0])
    assert told[7].endswith(hints.check_failed.rpartition("\n")[2])
    earlier = read_earlier(session.folder)
    (*_, note) = earlier.notes.values()
    assert note.startswith(hints.left_out.partition("{")[0])


def test_what_is_said_before_a_task_does_not_change_its_language() -> None:
    for task in ("请修好它", "fix it"):
        hints = hints_for(task)
        for text in (hints.plan_first, hints.cite):
            assert prompts.language_of(text.format(task=task)) == prompts.language_of(task)
