"""What is seen while an assistant works? What it is at, and on a terminal the answer too."""

from rich.console import Console

from expertmesh.assistants.watch import Watching
from expertmesh.clients.chat import Piece, Reply
from expertmesh.clients.live_lines import LiveLines, shown
from expertmesh.clients.transcript import Thinking
from expertmesh.progress import PacedLines


class View(Watching):
    """Writes to `notes`: live lines on a terminal, in a pipe a line every two seconds."""

    def __init__(self, notes: Console, thinking: Thinking = Thinking.FOLDED):
        self._notes = notes
        self._thinking = thinking
        self._lines = LiveLines(notes)
        self._paced = PacedLines(notes)
        self._at = "asking"
        self._kind = ""
        self._pieces = 0

    def begins(self, what: str) -> None:
        self._lines.end()
        self._at, self._kind, self._pieces = what, "", 0
        if self._notes.is_terminal:
            self._print(f"▸ {what}", "dim")
        else:
            self._paced.say(what)

    def piece(self, piece: Piece, reply: Reply) -> None:
        self._pieces += 1
        if not self._notes.is_terminal:
            kind = "thinking" if piece.kind == "reasoning" else "answering"
            self._paced.say(f"{self._at}: {kind}, {self._pieces} pieces so far")
        elif piece.kind != "reasoning" or self._thinking is not Thinking.HIDDEN:
            starts = self._kind not in ("", piece.kind)
            self._kind = piece.kind
            self._lines.add("\n" * starts + piece.text)

    def says(self, text: str) -> None:
        if self._notes.is_terminal:
            self._lines.add(text.rstrip("\n") + "\n")
        else:
            self._paced.say(f"{self._at}: {text}")

    def answered(self, reply: Reply) -> None:
        self._lines.end()
        if self._notes.is_terminal:
            if reply.reasoning and self._thinking is Thinking.FULL:
                self._print(reply.reasoning.strip(), "dim")
            thought = f"thought for {reply.thinking_s:.1f} s, " if reply.reasoning else ""
            self._print(f"  {thought}{reply.speed_line()}", "dim")

    def waits(self, seconds: float, reason: str) -> None:
        self.note(f"{reason}; asking again in {seconds:.0f} s")

    def note(self, text: str) -> None:
        self._lines.end()
        self._print(text, "yellow")

    def close(self) -> None:
        """Give the terminal back."""
        self._lines.end()

    def _print(self, text: str, style: str = "") -> None:
        self._notes.print(shown(text, self._notes), style=style, markup=False, soft_wrap=True)
