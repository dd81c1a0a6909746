"""What undo cannot put back is said before the model is asked for the first time."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from expertmesh.agent import session as sessions
from expertmesh.agent.loop.approval import Approve
from expertmesh.agent.record.checkpoint import Checkpoint
from expertmesh.agent.session import Session, Settings
from tests.support.expertmesh.agent_run import Notes
from tests.support.expertmesh.plain_sandbox import PlainSandbox
from tests.support.expertmesh.scripted_model import ScriptedModel


class Asked(ScriptedModel):
    """Remembers what had been said to the user at each question."""

    def __init__(self, notes: Notes, *calls: tuple[str, dict[str, Any]]):
        super().__init__(list(calls), "done")
        self._notes = notes
        self.said: list[list[str]] = []

    async def ask(self, *arguments: Any) -> Any:
        self.said.append(list(self._notes.lines))
        return await super().ask(*arguments)


async def run(tmp_path: Path, *commands: str, **settings: Any) -> list[list[str]]:
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    notes = Notes()
    model = Asked(notes, *(("shell", {"command": command}) for command in commands))
    settings = {"tools": ("shell", "file_editor"), "approve": Approve.ALL, **settings}
    with Session(
        model,
        Settings(work_dir=work, **settings),
        state=tmp_path / "state",
        sandbox=PlainSandbox(work),
        watcher=notes,
    ) as session:
        await session.run("task")
    return [*model.said, notes.lines]


@pytest.fixture
def files(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    for number in range(5):
        (tmp_path / "work" / f"{number}").write_text("x" * 100)


LIMITS = [({"max_names": 3}, "too many files"), ({"max_bytes": 250}, "3 files are too large")]


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(("limit", "words"), LIMITS)
async def test_it_is_said_at_once_and_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: dict[str, int], words: str
) -> None:
    monkeypatch.setattr(sessions, "Checkpoint", partial(Checkpoint, **limit))
    first, *_, last = await run(tmp_path, "true", "echo")
    (line,) = first
    assert words in line
    assert last == [line]


async def test_it_is_said_later_if_the_folder_has_become_too_large_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "Checkpoint", partial(Checkpoint, max_names=3))
    outlook = Checkpoint.outlook

    def and_then_grow(checkpoint: Checkpoint) -> tuple[bool, int]:
        found = outlook(checkpoint)
        for number in range(5):
            (tmp_path / "work" / f"{number}").touch()
        return found

    monkeypatch.setattr(Checkpoint, "outlook", and_then_grow)
    first, second, _ = await run(tmp_path, "true")
    assert first == []
    assert "too many files" in second[0]


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    "settings", [{"writable": False, "tools": ("shell",)}, {"tools": ("file_editor",)}]
)
async def test_where_no_command_can_change_anything_nothing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    monkeypatch.setattr(sessions, "Checkpoint", partial(Checkpoint, max_names=3))
    assert await run(tmp_path, **settings) == [[], []]


@pytest.mark.usefixtures("files")
async def test_what_can_be_kept_needs_no_word(tmp_path: Path) -> None:
    assert await run(tmp_path, "true") == [[], [], []]
