"""How is a growing text shown? Its last lines, dim, which vanish when it ends."""

from rich.console import Console
from rich.live import Live
from rich.text import Text

_CONTROL = dict.fromkeys(
    code for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"
)
"""Control characters could make a terminal act; they are dropped there and kept in pipes."""
SHOWN_LINES = 4


def shown(text: str, console: Console) -> str:
    """The text as `console` may print it."""
    return text.translate(_CONTROL) if console.is_terminal else text


class LiveLines:
    """One text on a terminal. Nothing is shown before the first piece."""

    def __init__(self, console: Console):
        self._console = console
        self._text = ""
        self._live: Live | None = None

    def add(self, text: str) -> None:
        self._text += text
        if self._live is None:
            self._live = Live(console=self._console, transient=True, refresh_per_second=12)
            self._live.start()
        self._live.update(Text(self._window(), style="dim"))

    def end(self) -> bool:
        """Take it away; whether there was anything."""
        if self._live is None:
            return False
        self._live.stop()
        self._live, self._text = None, ""
        return True

    def _window(self) -> str:
        width = max(20, self._console.width - 1)
        # Enough of the end for all lines: a long text is not gone through at each piece.
        tail = shown(self._text[-SHOWN_LINES * width * 2 :], self._console)
        lines = [
            line[start : start + width]
            for line in tail.strip().splitlines()
            for start in range(0, max(1, len(line)), width)
        ]
        return "\n".join(lines[-SHOWN_LINES:])
