"""How is the start of the cluster shown? A live line per service, or plain lines in a pipe."""

import re
from collections.abc import Sequence
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

_PERCENT = re.compile(r"\b(\d{1,3}) ?%(: .*)?")
"""A percentage, and what follows it: how much, how fast, how long yet."""


class Progress(Protocol):
    """Where the cluster reports its start."""

    def update(self, name: str, text: str, *, ready: bool = False) -> None: ...
    def close(self) -> None: ...


class PlainProgress:
    """A line whenever a service's state changes; percentages in steps of 25."""

    def __init__(self, console: Console):
        self._console = console
        self._shown: dict[str, str] = {}

    def update(self, name: str, text: str, *, ready: bool = False) -> None:
        stepped = _PERCENT.sub(lambda found: f"{int(found[1]) // 25 * 25} %", text)
        if self._shown.get(name) != stepped:
            self._shown[name] = stepped
            found = _PERCENT.search(text)
            shown = text if found and found[2] else stepped
            self._console.print(f"{name}: {shown}", markup=False, soft_wrap=True)

    def close(self) -> None:
        pass


class LiveProgress:
    """One line per service, updated in place: spinner, name, what it is doing."""

    def __init__(self, console: Console, names: Sequence[str]):
        self._rows: dict[str, tuple[str, bool]] = dict.fromkeys(names, ("waiting", False))
        self._spinner = Spinner("dots")
        self._live = Live(self._table(), console=console, refresh_per_second=10)
        self._live.start()

    def update(self, name: str, text: str, *, ready: bool = False) -> None:
        if self._rows.get(name) != (text, ready):
            self._rows[name] = (text, ready)
            self._live.update(self._table())

    def close(self) -> None:
        self._live.stop()

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 1))
        for name, (text, ready) in self._rows.items():
            waiting = text == "waiting"
            mark = Text("✓", "green") if ready else Text("·", "dim") if waiting else self._spinner
            table.add_row(mark, Text(name, "bold"), Text(text, "green" if ready else "dim"))
        return table
