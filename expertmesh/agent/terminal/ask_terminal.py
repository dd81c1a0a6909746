"""How is the user asked about a call? On the terminal, without a thread that could not be ended."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable

from rich.console import Console

from expertmesh.agent.loop.approval import Answer, Question
from expertmesh.agent.mcp_servers.confirmation import ServerQuestion
from expertmesh.agent.terminal.shown import in_full
from expertmesh.clients.live_lines import shown

_CHOICES = "y: yes, n: no, a: always for this tool, q: end the run"
_ANSWERS = {
    "y": Answer.YES,
    "yes": Answer.YES,
    "n": Answer.NO,
    "no": Answer.NO,
    "a": Answer.ALWAYS,
    "q": Answer.STOP,
    "": Answer.NO,
}

ReadLine = Callable[[], Awaitable[str | None]]


class TerminalAsk:
    """Shows a call in full and reads the answer; an empty line is no, the end of input ends."""

    def __init__(self, notes: Console, read_line: ReadLine | None = None):
        self._notes = notes
        self._read_line = read_line or line_of_stdin

    async def __call__(self, question: Question) -> Answer:
        if question.after_web:
            self._print("A page from the web was read before this call.", "yellow")
        self._print(in_full(question.arguments), "")
        while True:
            self._print(f"Allow {question.tool}? [{_CHOICES}]", "bold")
            line = await self._read_line()
            if line is None:
                return Answer.STOP
            answer = _ANSWERS.get(line.strip().lower())
            if answer is not None:
                return answer

    async def server(self, question: ServerQuestion) -> bool:
        """Whether this MCP server may be started; only a clear yes is one."""
        self._print(
            f"MCP server {question.name} runs outside the sandbox, with all that you may do:", ""
        )
        told = {
            "command": question.command_line,
            "program": question.program,
            "variables": ", ".join(question.variables) or "none",
        }
        self._print(in_full(told), "")
        self._print(
            "Start it, now and whenever nothing of this has changed? [y: yes, n: no]", "bold"
        )
        line = await self._read_line()
        return line is not None and _ANSWERS.get(line.strip().lower()) is Answer.YES

    def _print(self, text: str, style: str) -> None:
        self._notes.print(shown(text, self._notes), style=style, markup=False, soft_wrap=True)


async def line_of_stdin() -> str | None:
    """The next line that the user enters; None at the end of input."""
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    handle = sys.stdin.fileno()
    loop.add_reader(handle, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(handle)
    data = os.read(handle, 4096)
    return data.decode("utf-8", "replace") if data else None
