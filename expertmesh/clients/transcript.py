"""How is an answer shown in a terminal? Thinking dimmed and folded, then the text."""

from collections.abc import Iterable
from enum import StrEnum

from rich.console import Console
from rich.live import Live
from rich.text import Text

from expertmesh.clients.chat import Piece, Reply

_CONTROL = dict.fromkeys(
    code for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"
)
"""Control characters could make a terminal act; they are dropped there and kept in pipes."""
FOLDED_LINES = 4
"""Lines of thinking shown while it arrives."""


class Thinking(StrEnum):
    FOLDED = "folded"
    FULL = "full"
    HIDDEN = "hidden"


def show_reply(
    pieces: Iterable[Piece], reply: Reply, *, out: Console, notes: Console, thinking: Thinking
) -> None:
    """Print an answer as it arrives: content on `out`, thinking and remarks on `notes`.

    Folded thinking scrolls in a few dim lines and becomes one line when it ends. If `notes` is
    not a terminal, it is printed in full.
    """
    fold = _Fold(notes, thinking)
    last_kind = ""
    try:
        for piece in pieces:
            if piece.kind == "reasoning":
                fold.add(piece.text)
            else:
                fold.end(reply)
                text = piece.text
                if piece.kind == "content" and not last_kind:
                    text = text.lstrip("\n")
                if piece.kind == "tool_call" and last_kind != "tool_call":
                    out.print("[tool call] ", end="", markup=False)
                out.print(shown(text, out), end="", markup=False, soft_wrap=True)
                last_kind = piece.kind
        fold.end(reply)
    finally:
        fold.abandon()
        out.print()
    if reply.finish_reason == "length":
        notes.print("(cut off at max_tokens or at the end of the context)", style="yellow")


def shown(text: str, console: Console) -> str:
    """The text as `console` may print it."""
    return text.translate(_CONTROL) if console.is_terminal else text


class _Fold:
    """The thinking of one answer."""

    def __init__(self, console: Console, mode: Thinking):
        self._console = console
        self._mode = mode
        self._text = ""
        self._live: Live | None = None
        self._ended = False

    def add(self, text: str) -> None:
        first = not self._text
        self._text += text
        if self._mode is Thinking.HIDDEN:
            return
        if self._mode is Thinking.FULL or not self._console.is_terminal:
            if first:
                self._console.print("thinking: ", end="", style="dim")
                text = text.lstrip("\n")
            text = shown(text, self._console)
            self._console.print(text, end="", style="dim", markup=False, soft_wrap=True)
            return
        if self._live is None:
            self._live = Live(console=self._console, transient=True, refresh_per_second=12)
            self._live.start()
        self._live.update(Text(self._window(), style="dim"))

    def end(self, reply: Reply) -> None:
        """The thinking has ended: fold it."""
        if self._ended:
            return
        self._ended = True
        if not self._text:
            return
        if self._live is not None:
            self._live.stop()
            self._live = None
            self._console.print(f"▸ thought for {reply.thinking_s:.1f} s", style="dim")
        elif self._mode is not Thinking.HIDDEN:
            self._console.print("\n")

    def abandon(self) -> None:
        if self._live is not None:
            self._live.stop()

    def _window(self) -> str:
        width = max(20, self._console.width - 1)
        lines = [
            line[start : start + width]
            for line in shown(self._text, self._console).strip().splitlines()
            for start in range(0, max(1, len(line)), width)
        ]
        return "\n".join(lines[-FOLDED_LINES:])
