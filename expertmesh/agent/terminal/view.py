"""How does a run look in a terminal, and in a pipe? One line or two for each step."""

from typing import Any

from rich.console import Console

from expertmesh.agent.loop.verify import Check
from expertmesh.agent.loop.watch import Watcher
from expertmesh.agent.terminal.shown import brief, one_line
from expertmesh.agent.tools.tool import Result, Status
from expertmesh.clients.chat import Piece, Reply
from expertmesh.clients.live_lines import LiveLines, shown
from expertmesh.clients.transcript import Thinking

_STYLES = {
    Status.OK: "green",
    Status.FAILED: "red",
    Status.REFUSED: "yellow",
    Status.TIMED_OUT: "red",
}
_RESULT_CHARS = 100
_MARKS = {"pending": " ", "in_progress": ">", "done": "x"}


class RunView(Watcher):
    """Writes to `notes`. What is going on is live on a terminal, and left out of a pipe."""

    def __init__(self, notes: Console, thinking: Thinking):
        self._notes = notes
        self._thinking = thinking
        self._lines = LiveLines(notes)
        self._kind = ""
        self._plan: list[dict[str, str]] = []

    def turn_begins(self, step: int) -> None:
        self._kind = ""

    def piece(self, piece: Piece, reply: Reply) -> None:
        is_thinking = piece.kind == "reasoning"
        if not self._notes.is_terminal or (is_thinking and self._thinking is Thinking.HIDDEN):
            return
        starts = self._kind not in ("", piece.kind)
        self._kind = piece.kind
        self._lines.add("\n" * starts + piece.text)

    def waits(self, seconds: float, reason: str) -> None:
        self._lines.end()
        self._print(f"{reason}; asking again in {seconds:.0f} s", "yellow")

    def turn_ended(self, step: int, reply: Reply) -> None:
        self._lines.end()
        thought = f"thought for {reply.thinking_s:.1f} s, " if reply.reasoning else ""
        rate = f", {reply.tokens_per_s:.1f} tokens/s" if reply.completion_tokens > 1 else ""
        self._print(f"▸ step {step}: {thought}{reply.completion_tokens} tokens{rate}", "dim")
        if reply.reasoning and self._thinking is Thinking.FULL:
            self._print(_indented(reply.reasoning), "dim")
        if reply.tool_calls and reply.content.strip():
            self._print(_indented(reply.content))

    def call_begins(self, name: str, arguments: dict[str, Any]) -> None:
        self._plan = arguments.get("steps", []) if name == "update_plan" else []
        self._print(f"  {name}  {brief(arguments)}", "bold")

    def output(self, text: str) -> None:
        if self._notes.is_terminal:
            self._lines.add(text)

    def call_ended(self, name: str, result: Result, seconds: float) -> None:
        self._lines.end()
        if self._plan and result.status is Status.OK:
            for one in self._plan:
                self._print(f"    [{_MARKS[one['status']]}] {one_line(one['step'])}")
            return
        lines = result.text.count("\n") + 1
        more = f" ({lines} lines)" if lines > 1 else ""
        text = one_line(result.text, _RESULT_CHARS)
        ended = f"  {result.status.value} {seconds:.1f} s{more}: {text}"
        self._print(ended, _STYLES[result.status])

    def check_begins(self, command: str) -> None:
        self._print(f"  check  {one_line(command)}", "bold")

    def checked(self, check: Check) -> None:
        result = "passed" if check.passed else f"failed: {one_line(check.text, _RESULT_CHARS)}"
        self._print(f"  {result} {check.seconds:.1f} s", "green" if check.passed else "red")

    def note(self, text: str) -> None:
        self._lines.end()
        self._print(text, "yellow")

    def close(self) -> None:
        """After an interruption: give the terminal back."""
        self._lines.end()

    def _print(self, text: str, style: str = "") -> None:
        self._notes.print(shown(text, self._notes), style=style, markup=False, soft_wrap=True)


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.strip().splitlines())
