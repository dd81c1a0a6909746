"""A server is asked about once, and again when anything of it has changed."""

import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from expertmesh.agent.mcp_servers.config import ServerConfig
from expertmesh.agent.mcp_servers.confirmation import (
    Confirmations,
    NotConfirmedError,
    ServerQuestion,
    question_of,
)


class User:
    def __init__(self, says: bool):
        self.says = says
        self.asked: list[ServerQuestion] = []

    async def __call__(self, question: ServerQuestion) -> bool:
        self.asked.append(question)
        return self.says


@pytest.fixture
def server(tmp_path: Path) -> ServerConfig:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    (tmp_path / "script.py").write_text("one")
    return ServerConfig("demo", "./program", ("script.py", "--flag"), {"KEY": "a"})


@pytest.fixture
def kept(tmp_path: Path) -> Confirmations:
    return Confirmations(tmp_path / "state" / "mcp.json")


async def test_yes_is_asked_for_once(
    server: ServerConfig, kept: Confirmations, tmp_path: Path
) -> None:
    user = User(True)
    for _ in range(2):
        await kept.require(question_of(server, tmp_path), user)
    (question,) = user.asked
    assert question.command_line == "./program script.py --flag"
    assert question.program == str(tmp_path / "program")
    assert question.variables == ("KEY",)
    path = tmp_path / "state" / "mcp.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert '"a"' not in path.read_text()


async def test_no_is_kept_by_nobody(
    server: ServerConfig, kept: Confirmations, tmp_path: Path
) -> None:
    user = User(False)
    for _ in range(2):
        with pytest.raises(NotConfirmedError, match="was not confirmed"):
            await kept.require(question_of(server, tmp_path), user)
    assert len(user.asked) == 2


async def test_without_a_terminal_it_says_what_to_do(
    server: ServerConfig, kept: Confirmations, tmp_path: Path
) -> None:
    with pytest.raises(NotConfirmedError, match="no terminal to ask on"):
        await kept.require(question_of(server, tmp_path), None)


Change = Callable[[ServerConfig, Path], ServerConfig]


def touched(name: str) -> Change:
    def change(server: ServerConfig, folder: Path) -> ServerConfig:
        (folder / name).write_text("#!/bin/sh\nexit\n")
        return server

    return change


@pytest.mark.parametrize(
    "change",
    [
        touched("program"),
        touched("script.py"),
        lambda server, _: replace(server, args=("script.py",)),
        lambda server, _: replace(server, env={"KEY": "b"}),
        lambda server, folder: replace(server, command=str(folder / "program")),
    ],
    ids=["program", "file", "arguments", "environment", "command"],
)
async def test_whatever_changes_is_asked_about_again(
    server: ServerConfig, kept: Confirmations, tmp_path: Path, change: Change
) -> None:
    await kept.require(question_of(server, tmp_path), User(True))
    changed = question_of(change(server, tmp_path), tmp_path)
    with pytest.raises(NotConfirmedError):
        await kept.require(changed, None)


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
async def test_a_file_that_others_can_write_confirms_nothing(
    server: ServerConfig, kept: Confirmations, tmp_path: Path, mode: int
) -> None:
    question = question_of(server, tmp_path)
    await kept.require(question, User(True))
    (tmp_path / "state" / "mcp.json").chmod(mode)
    with pytest.raises(NotConfirmedError):
        await kept.require(question, None)


@pytest.mark.parametrize("content", ["", "[]", "{", "\xff"])
async def test_a_damaged_file_confirms_nothing_and_is_written_anew(
    server: ServerConfig, kept: Confirmations, tmp_path: Path, content: str
) -> None:
    question = question_of(server, tmp_path)
    path = tmp_path / "state" / "mcp.json"
    path.parent.mkdir()
    path.write_text(content, encoding="latin-1")
    path.chmod(0o600)
    await kept.require(question, User(True))
    await kept.require(question, None)


def test_a_program_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="demo: there is no program nowhere"):
        question_of(ServerConfig("demo", "nowhere"), tmp_path)
