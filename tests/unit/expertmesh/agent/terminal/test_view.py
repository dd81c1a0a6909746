"""What people see of a run, and what they are asked."""

import io
from typing import Any

import pytest
from rich.console import Console

from expertmesh.agent.loop.approval import Answer, Question
from expertmesh.agent.loop.verify import Check
from expertmesh.agent.mcp_servers.confirmation import ServerQuestion
from expertmesh.agent.terminal.ask_terminal import TerminalAsk
from expertmesh.agent.terminal.shown import brief, in_full
from expertmesh.agent.terminal.view import RunView
from expertmesh.agent.tools.tool import Effect, Result, Status
from expertmesh.clients.chat import Piece, Reply
from expertmesh.clients.transcript import Thinking


def console(*, terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=100, highlight=False)


def text_of(one: Console) -> str:
    file = one.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def play(view: RunView) -> None:
    """A step with a call, and what follows it."""
    reply = Reply(reasoning="I think\nso", content="Let me look.", completion_tokens=9)
    reply.tool_calls = [{"id": "c"}]
    reply.first_token_s, reply.total_s, reply.thinking_s = 1.0, 2.0, 1.5
    view.turn_begins(1)
    view.piece(Piece("reasoning", "I think\nso"), reply)
    view.piece(Piece("content", "Let me look."), reply)
    view.turn_ended(1, reply)
    view.call_begins("shell", {"command": "ls \x1b[2J -l\nrm x"})
    view.output("partial")
    view.call_ended("shell", Result(Status.FAILED, "exit code 2\nstderr:\nno"), 0.25)
    view.waits(7, "busy")
    view.checked(Check("pytest", False, "exit code 1\nfailed", 1.5))
    view.close()


def test_in_a_pipe_each_step_is_plain_lines() -> None:
    notes = console(terminal=False)
    play(RunView(notes, Thinking.FOLDED))
    assert text_of(notes).splitlines() == [
        "▸ step 1: thought for 1.5 s, 9 tokens, 8.0 tokens/s",
        "    Let me look.",
        "  shell  ls \x1b[2J -l...",
        "  failed 0.2 s (3 lines): exit code 2...",
        "busy; asking again in 7 s",
        "  failed: exit code 1... 1.5 s",
    ]


def test_thinking_in_full() -> None:
    notes = console(terminal=False)
    play(RunView(notes, Thinking.FULL))
    assert "    I think\n    so\n" in text_of(notes)


def test_on_a_terminal_what_a_model_writes_cannot_act() -> None:
    notes = console(terminal=True)
    play(RunView(notes, Thinking.FOLDED))
    assert "ls [2J -l..." in text_of(notes)
    assert "\x1b[2J" not in text_of(notes)
    assert "I think" in text_of(notes)  # live, until the step has ended


def test_hidden_thinking_is_not_live_either() -> None:
    notes = console(terminal=True)
    play(RunView(notes, Thinking.HIDDEN))
    assert "I think" not in text_of(notes)
    assert "Let me look" in text_of(notes)


def test_a_plan_is_shown_with_its_marks() -> None:
    notes = console(terminal=False)
    view = RunView(notes, Thinking.FOLDED)
    steps = [{"step": "look", "status": "done"}, {"step": "mend", "status": "in_progress"}]
    view.call_begins("update_plan", {"steps": steps})
    view.call_ended("update_plan", Result(Status.OK, "noted"), 0.0)
    assert text_of(notes) == "  update_plan  2 steps\n    [x] look\n    [>] mend\n"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"command": "ls"}, "ls"),
        ({"action": "edit", "file_path": "a.txt", "old_text": "x"}, "edit a.txt"),
        ({"code": "\n\nx = 1\ny = 2"}, "x = 1..."),
        ({"url": "http://x/" + "y" * 200}, "http://x/" + "y" * 91 + "..."),
        ({"name": "n", "count": 3}, "name=n, count=3"),
        ({}, ""),
    ],
)
def test_a_call_in_one_line(arguments: dict[str, Any], line: str) -> None:
    assert brief(arguments) == line


def test_what_is_asked_about_is_shown_whole_and_hides_nothing() -> None:
    shown = in_full({"command": "echo \u202e\x1b[8m harmless\r rm -rf x", "list": [1, "a"]})
    assert shown == ("  command: echo \\u202e\\x1b[8m harmless\\r rm -rf x\n  list: [1, 'a']")
    long = in_full({"code": "\n".join(f"line {n}" for n in range(200))})
    assert "... 140 more lines ..." in long
    assert "line 0\n" in long
    assert long.endswith("line 199")


@pytest.mark.parametrize(
    ("lines", "answer"),
    [
        (["y\n"], Answer.YES),
        (["N\n"], Answer.NO),
        (["\n"], Answer.NO),
        (["what?\n", " A \n"], Answer.ALWAYS),
        (["q\n"], Answer.STOP),
        ([None], Answer.STOP),
    ],
)
async def test_answers_on_the_terminal(lines: list[str | None], answer: Answer) -> None:
    entered = iter(lines)

    async def read_line() -> str | None:
        return next(entered)

    notes = console(terminal=False)
    ask = TerminalAsk(notes, read_line)
    question = Question("shell", {"command": "rm x"}, Effect.RUNS, after_web=True)
    assert await ask(question) is answer
    assert text_of(notes).count("Allow shell? [y: yes, n: no, a: always") == len(lines)
    assert "A page from the web was read before this call.\n  command: rm x\n" in text_of(notes)


@pytest.mark.parametrize(
    ("line", "agreed"),
    [("y\n", True), ("yes\n", True), ("n\n", False), ("a\n", False), (None, False)],
)
async def test_a_server_is_asked_about_by_its_command_line(line: str | None, agreed: bool) -> None:
    async def read_line() -> str | None:
        return line

    notes = console(terminal=False)
    question = ServerQuestion("files", "npx server\x1b[8m -y", "/usr/bin/npx", ("HOME",), "d")
    assert await TerminalAsk(notes, read_line).server(question) is agreed
    assert "MCP server files runs outside the sandbox" in text_of(notes)
    assert "  command: npx server\\x1b[8m -y\n  program: /usr/bin/npx\n" in text_of(notes)
