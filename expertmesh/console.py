"""How do the commands talk to people and to scripts? Consoles, exit codes, clear failures."""

import inspect
import json
import sys
from typing import Any, NoReturn, TextIO

import typer
from rich.console import Console

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_NOT_RUNNING = 3

PIPE_WIDTH = 200

EXIT_CODES_HELP = "Exit codes: 0 ok, 1 failed, 2 usage, 3 not running or not ready."


class CommandError(Exception):
    """Something a command cannot do, in one clear line, with the exit code that says what kind."""

    def __init__(self, message: str, exit_code: int = EXIT_FAILED):
        super().__init__(message)
        self.exit_code = exit_code


def stdout() -> Console:
    """For answers and tables; built at the call so that redirected streams are honoured."""
    return Console(highlight=False, width=_width(sys.stdout))


def stderr() -> Console:
    """For progress and remarks, so that standard output stays usable in pipes."""
    return Console(stderr=True, highlight=False, width=_width(sys.stderr))


def _width(stream: TextIO) -> int | None:
    """A terminal's own width; in pipes and files nothing is folded at 80 columns."""
    return None if stream.isatty() else PIPE_WIDTH


def help_text(text: str) -> str:
    """Command help from source text: paragraphs become one line each, indented examples stay."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(
        paragraph if paragraph.startswith("  ") else " ".join(paragraph.split("\n"))
        for paragraph in paragraphs
    )


def print_json(value: Any) -> None:
    """One JSON document on standard output, never wrapped or coloured."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def fail(message: str, exit_code: int = EXIT_FAILED) -> NoReturn:
    """Say one clear line on standard error and leave with `exit_code`."""
    sys.stderr.write(f"expertmesh: {message}\n")
    raise typer.Exit(exit_code)
