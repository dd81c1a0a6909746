"""How far is a long command? On standard error: a terminal's last line, or a line every 2 s."""

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from expertmesh.console import stderr

EVERY_S = 2.0


class PacedLines:
    """For pipes and files: the first line at once, then at most one in `EVERY_S`."""

    def __init__(self, console: Console, clock_s: Callable[[], float] = time.monotonic):
        self._console, self._clock_s = console, clock_s
        self._next_s = clock_s()

    def say(self, text: str) -> None:
        if self._clock_s() >= self._next_s:
            self._next_s = self._clock_s() + EVERY_S
            self._console.print(text, markup=False, soft_wrap=True)


@contextlib.contextmanager
def progress_note(*, hidden: bool) -> Iterator[Callable[[str], None]]:
    """Call what it yields with a line that says how far the command is, as often as you like."""
    console = stderr()
    if hidden:
        yield lambda text: None
    elif console.is_terminal:
        with console.status("") as status:
            yield lambda text: status.update(escape(text))
    else:
        yield PacedLines(console).say


@contextlib.contextmanager
def layer_bar(what: str, total: int, *, hidden: bool) -> Iterator[Callable[[int, int], None]]:
    """A progress bar of layers; call what it yields with (layers done, total)."""
    if hidden or not stderr().is_terminal:
        with progress_note(hidden=hidden) as say:
            say(f"{what} 0 of {total}")
            yield lambda done, total: say(f"{what} {done} of {total}")
        return
    bar = Progress(
        TextColumn(what),
        BarColumn(),
        TextColumn("{task.completed:.0f} of {task.total:.0f}"),
        TimeRemainingColumn(),
        console=stderr(),
    )
    with bar:
        task = bar.add_task("layers", total=total)
        yield lambda done, total: bar.update(task, completed=done, total=total)
