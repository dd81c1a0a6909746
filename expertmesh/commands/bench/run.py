"""How does a benchmark command run and end? Progress bar, table, JSON, plot, exit code."""

import asyncio
import json
import math
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from expertmesh.console import EXIT_FAILED, CommandError, command_errors, stderr, stdout
from expertmesh.loadgen.plot import require_matplotlib, save_plot
from expertmesh.loadgen.record import Record
from expertmesh.loadgen.report import report
from expertmesh.loadgen.summary import METRICS
from expertmesh.progress import PacedLines

EXIT_INTERRUPTED = 130


class Bar:
    """The requests that are done, on standard error: a bar, or lines if that is no terminal."""

    def __init__(self) -> None:
        console = stderr()
        self._progress = Progress(
            TextColumn("requests"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[tokens]} tokens"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=None, tokens=0)
        self._tokens = self._done = self._total = 0
        self._lines = None if console.is_terminal else PacedLines(console)

    def start(self, total: int) -> None:
        self._total = total
        self._progress.update(self._task, total=total)
        self._progress.start()
        self._say()

    def count(self, record: Record) -> None:
        self._tokens += record.output_tokens
        self._done += 1
        self._progress.update(self._task, advance=1, tokens=self._tokens)
        self._say()

    def stop(self) -> None:
        self._progress.stop()

    def _say(self) -> None:
        if self._lines is not None:
            done = f"{self._done} of {self._total} requests"
            self._lines.say(f"{done}, {self._tokens} tokens")


def measure(
    work: Callable[[list[Record], Bar], Coroutine[Any, Any, Any]], error_code: int
) -> tuple[list[Record], bool]:
    """Run `work`; returns (what was measured, whether Ctrl-C ended it). Raises CommandError."""
    records: list[Record] = []
    bar = Bar()
    try:
        asyncio.run(work(records, bar))
    except KeyboardInterrupt:
        return records, True
    except ValueError as error:
        raise CommandError(str(error), error_code) from None
    finally:
        bar.stop()
    return records, False


def finish(
    result: dict[str, Any],
    records: list[Record],
    title: str,
    as_json: bool,
    plot: Path | None,
    interrupted: bool,
) -> None:
    """Print and draw the result, and exit with the code that fits. Raises CommandError."""
    table = report(result, title)
    (stderr() if as_json else stdout()).print(table, markup=False, soft_wrap=True)
    for error in result.get("errors", ()):
        stderr().print(f"failed: {error}", markup=False, soft_wrap=True)
    if plot is not None:
        with command_errors():
            save_plot(records, plot, f"{result['model_id']}: {title}")
        stderr().print(f"wrote {plot}", markup=False)
    if as_json:
        rate = result.get("request_rate")
        line = {**result, **({"request_rate": "inf"} if rate == math.inf else {})}
        stdout().print(json.dumps(line, allow_nan=False), markup=False, soft_wrap=True)
    if interrupted:
        raise typer.Exit(EXIT_INTERRUPTED)
    if result["completed"] == 0:
        raise typer.Exit(EXIT_FAILED)


def check_plot(plot: Path | None) -> None:
    """Raises ValueError, before anything runs, if the plot could not be written."""
    if plot is not None:
        require_matplotlib()
        if not plot.absolute().parent.is_dir():
            raise ValueError(f"--plot {plot}: {plot.absolute().parent} is not a folder")


def parse_percentiles(text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or not all(0 <= value <= 100 for value in values):
        raise ValueError(f"--percentiles: numbers from 0 to 100, as in 50,99; got {text!r}")
    return values


def parse_goodput(limits: list[str]) -> dict[str, float]:
    parsed = {}
    for limit in limits:
        name, _, value = limit.partition(":")
        try:
            parsed[name] = float(value)
        except ValueError:
            name = ""
        if name not in METRICS or not parsed[name] > 0:
            raise ValueError(
                f"--goodput: one of {', '.join(METRICS)} and milliseconds, as in ttft:500; "
                f"got {limit!r}"
            )
    return parsed
