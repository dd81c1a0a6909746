"""How is an answer shown in a terminal? Thinking dimmed and folded, then the text."""

from collections.abc import Iterable
from enum import StrEnum

from rich.console import Console

from expertmesh.clients.chat import Piece, Reply
from expertmesh.clients.live_lines import LiveLines, shown


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


class _Fold:
    """The thinking of one answer."""

    def __init__(self, console: Console, mode: Thinking):
        self._console = console
        self._mode = mode
        self._is_empty = True
        self._lines = LiveLines(console)
        self._ended = False

    def add(self, text: str) -> None:
        first, self._is_empty = self._is_empty, False
        if self._mode is Thinking.HIDDEN:
            return
        if self._mode is Thinking.FULL or not self._console.is_terminal:
            if first:
                self._console.print("thinking: ", end="", style="dim")
                text = text.lstrip("\n")
            text = shown(text, self._console)
            self._console.print(text, end="", style="dim", markup=False, soft_wrap=True)
            return
        self._lines.add(text)

    def end(self, reply: Reply) -> None:
        """The thinking has ended: fold it."""
        if self._ended:
            return
        self._ended = True
        if self._is_empty:
            return
        if self._lines.end():
            self._console.print(f"▸ thought for {reply.thinking_s:.1f} s", style="dim")
        elif self._mode is not Thinking.HIDDEN:
            self._console.print("\n")

    def abandon(self) -> None:
        self._lines.end()
