"""After text from outside, whatever writes or runs is asked about; also in a run that goes on."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from expertmesh.agent.loop.approval import Answer, Approve, Question
from expertmesh.agent.loop.loop import Ending
from expertmesh.agent.record.past import Earlier, read_earlier
from expertmesh.agent.session import Session, Settings
from expertmesh.agent.tools.tool import Effect, Result, Source, Status, object_schema
from expertmesh.agent.web.marking import marked
from tests.support.expertmesh.plain_sandbox import PlainSandbox
from tests.support.expertmesh.scripted_model import ScriptedModel


@dataclass
class Says:
    """A tool with a fixed result."""

    name: str
    effect: Effect
    result: Result
    description: str = ""
    parameters: dict[str, Any] = field(default_factory=lambda: object_schema({}))

    async def call(self, arguments: dict[str, Any]) -> Result:
        return self.result


PAGE = marked("a page", "the web")
OTHERS = [
    Says("page", Effect.WEB, Result(Status.OK, PAGE, (Source.of("http://a.test/", "a"),))),
    Says("server", Effect.RUNS, Result(Status.OK, marked("x", "b"), (Source.of("mcp:a/b", "x"),))),
    Says("broken", Effect.RUNS, Result(Status.FAILED, marked("x", "the MCP server a"))),
    Says("plain", Effect.RUNS, Result(Status.OK, "bare", (Source.of("command", "bare"),))),
    Says("change", Effect.WRITES, Result(Status.OK, "changed")),
]


class User:
    def __init__(self) -> None:
        self.asked: list[Question] = []

    async def __call__(self, question: Question) -> Answer:
        self.asked.append(question)
        return Answer.YES


async def run(
    tmp_path: Path, *calls: str, earlier: Earlier | None = None
) -> tuple[Session, ScriptedModel, list[tuple[str, bool]]]:
    """The session, its model, and (tool, whether after the web) of each question."""
    (tmp_path / "work").mkdir(exist_ok=True)
    user = User()
    model = ScriptedModel([(name, {}) for name in calls], "done")
    with Session(
        model,
        Settings(work_dir=tmp_path / "work", tools=(), approve=Approve.ALL),
        state=tmp_path / "state",
        sandbox=PlainSandbox(tmp_path / "work"),
        ask=user,
        others=OTHERS,
    ) as session:
        assert (await session.run("task", earlier)).ending is Ending.DONE
    return session, model, [(one.tool, one.after_web) for one in user.asked]


@pytest.mark.parametrize(
    ("first", "asked"),
    [
        ("page", [("change", True)]),
        ("server", [("change", True)]),
        ("broken", [("change", True)]),
        ("plain", []),
        ("change", []),
    ],
)
async def test_text_from_outside_makes_it_ask(
    tmp_path: Path, first: str, asked: list[tuple[str, bool]]
) -> None:
    session, _, questions = await run(tmp_path, first, "change")
    assert questions == asked
    again = read_earlier(session.folder)
    assert (await run(tmp_path, "change", earlier=again))[2] == asked


async def test_a_page_that_was_left_out_since_is_not_forgotten(tmp_path: Path) -> None:
    session, _, _ = await run(tmp_path, "page")
    earlier = read_earlier(session.folder)
    for message in earlier.messages:
        message["content"] = "left out to save room"
    assert (await run(tmp_path, "change", earlier=earlier))[2] == [("change", True)]


async def test_servers_and_commands_can_be_cited(tmp_path: Path) -> None:
    _, model, _ = await run(tmp_path, "server", "plain")
    assert model.read[0].endswith("\n[1] mcp:a/b")
    assert model.read[1] == "bare\n[2] command"
