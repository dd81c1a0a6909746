"""A run of the agent against a scripted model behind the real gateway."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from expertmesh.agent.loop.approval import Approve, Ask
from expertmesh.agent.loop.loop import Progress
from expertmesh.agent.loop.turn import ServedChat
from expertmesh.agent.loop.watch import Watcher
from expertmesh.agent.record.trace import read_trace
from expertmesh.agent.session import Changes, Session, Settings
from expertmesh.agent.tools.tool import Tool
from expertmesh.clients.chat_stream import ChatStream
from tests.support.expertmesh.plain_sandbox import PlainSandbox

TOOLS = ("python_executor", "shell", "file_editor", "update_plan")
CONTEXT = 24_000
"""Of the scripted model; its prompts take a token for nearly every byte."""


@dataclass
class Waits:
    """Instead of sleeping: the seconds that the agent wanted to wait."""

    seconds: list[float] = field(default_factory=list)

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


@dataclass
class Notes(Watcher):
    """Keeps what a user is told."""

    lines: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        self.lines.append(text)


@dataclass
class Ran:
    """What came of a run."""

    progress: Progress
    changes: Changes
    session: Session
    notes: list[str]
    waits: list[float]

    @property
    def events(self) -> list[dict[str, Any]]:
        return read_trace(self.session.folder.trace)

    def results(self) -> list[str]:
        """What the model read of each call."""
        return [one["message"]["content"] for one in self.events if one["event"] == "tool"]


async def run_agent(
    url: str,
    work_dir: Path,
    task: str = "do it",
    *,
    state: Path,
    ask: Ask | None = None,
    others: Sequence[Tool] = (),
    model: str = "tiny-m2",
    **settings: Any,
) -> Ran:
    settings = {"approve": Approve.ALL, "tools": TOOLS, "max_steps": 10, **settings}
    chat, waits, notes = ChatStream(url), Waits(), Notes()
    served = ServedChat(chat, {"model": model}, sleep=waits)
    session = Session(
        served,
        Settings(work_dir=work_dir, **settings),
        state=state,
        sandbox=PlainSandbox(work_dir),
        ask=ask,
        watcher=notes,
        others=others,
    )
    try:
        progress = await session.run(task)
        changes = session.changes()
    finally:
        session.close()
        await chat.close()
    return Ran(progress, changes, session, notes.lines, waits.seconds)
