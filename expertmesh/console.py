"""How do the commands write to people and to scripts? Consoles, exit codes, JSON, errors."""

import contextlib
import inspect
import json
import sys
from collections.abc import Iterator
from typing import Any, TextIO

import typer
from rich.console import Console

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_NOT_RUNNING = 3

PIPE_WIDTH = 200

EXIT_CODES_HELP = "Exit codes: 0 ok, 1 failed, 2 usage, 3 not running or not ready."
JSON = typer.Option(False, "--json", envvar="EXPERTMESH_JSON", help="Print JSON, for scripts.")


class CommandError(Exception):
    """A command cannot do what it was asked: one clear line for people, and the exit code."""

    def __init__(self, message: str, exit_code: int = EXIT_FAILED):
        super().__init__(message)
        self.exit_code = exit_code


@contextlib.contextmanager
def command_errors(exit_code: int = EXIT_FAILED) -> Iterator[None]:
    """Raise ValueError and OSError as CommandError with `exit_code`."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise CommandError(str(error), exit_code) from None


def stdout() -> Console:
    """For answers and tables; made at each call, so that a redirected stream is used."""
    return Console(highlight=False, width=_width(sys.stdout))


def stderr() -> Console:
    """For progress and notes, so that standard output stays usable in pipes."""
    return Console(stderr=True, highlight=False, width=_width(sys.stderr))


def _width(stream: TextIO) -> int | None:
    """A terminal's own width; pipes and files get wide lines instead of 80 columns."""
    return None if stream.isatty() else PIPE_WIDTH


def help_text(text: str) -> str:
    """Help for a command: each paragraph becomes one line, indented paragraphs stay as they are."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(
        paragraph if paragraph.startswith("  ") else " ".join(paragraph.split("\n"))
        for paragraph in paragraphs
    )


def print_json(value: Any) -> None:
    """One JSON document on standard output, never wrapped or coloured."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    sys.stdout.flush()
