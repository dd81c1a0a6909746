"""`expertmesh data explain` and `suggest`: what is in a file, and what could be asked about it?"""

import asyncio
import contextlib
import dataclasses
import os
from enum import StrEnum
from pathlib import Path
from typing import NoReturn

import typer

from expertmesh.assistants.asking.model import TextModel
from expertmesh.assistants.data.claims import with_marks
from expertmesh.assistants.data.explain import Level, explain_concept, explain_file
from expertmesh.assistants.data.job import read_profile
from expertmesh.assistants.data.suggest import Suggestions, suggest
from expertmesh.assistants.prompts import language_of
from expertmesh.assistants.tables.describe import describe, details
from expertmesh.assistants.tables.profile import Profile
from expertmesh.assistants.view import View
from expertmesh.clients.live_lines import shown
from expertmesh.commands.assisting import EXIT_INTERRUPTED, run_assistant
from expertmesh.commands.data.analyse import DELIMITER, ENCODING, check_delimiter
from expertmesh.commands.model_flags import Asked, asks_model
from expertmesh.console import (
    EXIT_USAGE,
    JSON,
    CommandError,
    command_errors,
    help_text,
    print_json,
    stderr,
    stdout,
)

_DATA_SUFFIXES = (
    *(".csv", ".tsv", ".tab", ".txt", ".json", ".jsonl", ".ndjson", ".parquet", ".pq"),
    *(".xlsx", ".xlsm", ".xls"),
)
_MARK = "not in the profile"


class Language(StrEnum):
    """In which the model is asked, and answers."""

    EN = "en"
    ZH = "zh"


LANGUAGE = typer.Option(
    None,
    envvar="EXPERTMESH_LANGUAGE",
    help="Of the answer. Default: that of the question, or of the columns' names.",
)

_EXPLAIN_HELP = """Say in words what is in a file or a column, or what a concept of statistics is.

Of a file the model sees the profile; numbers that it says and that are not in that are marked.
--profile prints the profile, without asking a model. Of a concept nothing is checked.

Examples:

  expertmesh data explain sales.csv

  expertmesh data explain sales.csv --column price

  expertmesh data explain sales.csv --profile --json

  expertmesh data explain "standard deviation" --level intermediate

Exit codes: 0 ok, 1 failed, 2 usage, 3 not running, 130 interrupted.
"""

_SUGGEST_HELP = """Suggest questions about a file, each with the command that has it answered.

Questions that name columns which the file does not have are left out and counted.

Examples:

  expertmesh data suggest sales.csv

  expertmesh data suggest sales.csv --about "prices by city" -n 3 --json

Exit codes: 0 ok, 1 failed, 2 usage, 3 not running, 130 interrupted.
"""


def register(group: typer.Typer) -> None:
    group.command("explain", help=help_text(_EXPLAIN_HELP))(explain)
    group.command("suggest", help=help_text(_SUGGEST_HELP))(suggest_questions)


@asks_model
def explain(
    asked: Asked,
    what: str = typer.Argument(..., help="A file of data, or a concept of statistics."),
    column: str | None = typer.Option(
        None, envvar="EXPERTMESH_COLUMN", help="Of a file: explain this column alone."
    ),
    only_profile: bool = typer.Option(
        False, "--profile", envvar="EXPERTMESH_DATA_PROFILE", help="Print the profile of a file."
    ),
    level: Level = typer.Option(
        Level.BEGINNER, envvar="EXPERTMESH_LEVEL", help="For whom a concept is explained."
    ),
    language: Language | None = LANGUAGE,
    encoding: str | None = ENCODING,
    delimiter: str | None = DELIMITER,
    as_json: bool = JSON,
) -> None:
    check_delimiter(delimiter)
    if not _is_file(what):
        if column is not None or only_profile:
            raise CommandError(f"{what}: there is no such file", EXIT_USAGE)
        _explain_concept(asked, what, level, language, as_json)
    if only_profile:
        profile = _profile_alone(Path(what), encoding, delimiter)
        _tell_profile(profile, column, language, as_json)
        return

    async def work(model: TextModel, view: View) -> int:
        profile = await _profile(Path(what), encoding, delimiter, view)
        with command_errors(EXIT_USAGE):
            named = profile.column(column) if column is not None else None
        spoken = language or _language(profile)
        explained = await explain_file(model, profile, column=named, language=spoken, watching=view)
        view.close()
        if as_json:
            numbers = [one.text for one in explained.unfounded]
            told = {"explanation": explained.text, "numbers_not_in_profile": numbers}
            print_json({**told, "profile": profile.as_json()})
        else:
            _print(with_marks(explained.text, explained.unfounded, _MARK))
        return 0

    raise typer.Exit(run_assistant(asked, work))


@asks_model
def suggest_questions(
    asked: Asked,
    file: Path = typer.Argument(..., help="The data."),
    number: int = typer.Option(
        5, "--number", "-n", envvar="EXPERTMESH_NUMBER", min=1, max=20, help="How many at most."
    ),
    about: str = typer.Option(
        "", envvar="EXPERTMESH_ABOUT", help="What they should be about, in your words."
    ),
    language: Language | None = LANGUAGE,
    encoding: str | None = ENCODING,
    delimiter: str | None = DELIMITER,
    as_json: bool = JSON,
) -> None:
    check_delimiter(delimiter)
    if not file.exists():
        raise CommandError(f"{file}: there is no such file", EXIT_USAGE)

    async def work(model: TextModel, view: View) -> int:
        profile = await _profile(file, encoding, delimiter, view)
        spoken = language or (language_of(about) if about else _language(profile))
        found = await suggest(
            model, profile, number=number, about=about, language=spoken, watching=view
        )
        view.close()
        _tell_questions(found, file, as_json)
        return 0

    raise typer.Exit(run_assistant(asked, work))


def _explain_concept(
    asked: Asked, concept: str, level: Level, language: Language | None, as_json: bool
) -> NoReturn:
    if not concept.strip():
        raise CommandError("there is nothing to explain: give a file or a concept", EXIT_USAGE)

    async def work(model: TextModel, view: View) -> int:
        spoken = language or language_of(concept)
        explained = await explain_concept(
            model, concept.strip(), level=level, language=spoken, watching=view
        )
        view.close()
        if as_json:
            told = {"concept": concept.strip(), "level": level.value}
            print_json({**told, "explanation": explained.text})
        else:
            _print(explained.text)
        return 0

    raise typer.Exit(run_assistant(asked, work))


def _is_file(what: str) -> bool:
    """Raises CommandError for what only looks like one."""
    path = Path(what)
    if "\0" not in what and len(what) < 4096 and path.exists():
        return True
    if os.sep in what or path.suffix.lower() in _DATA_SUFFIXES:
        raise CommandError(f"{what}: there is no such file", EXIT_USAGE)
    return False


def _profile_alone(file: Path, encoding: str | None, delimiter: str | None) -> Profile:
    """Without a model. Raises CommandError."""
    with contextlib.closing(View(stderr())) as view:
        try:
            return asyncio.run(_profile(file, encoding, delimiter, view))
        except KeyboardInterrupt:
            raise CommandError("interrupted", EXIT_INTERRUPTED) from None


async def _profile(file: Path, encoding: str | None, delimiter: str | None, view: View) -> Profile:
    """Raises CommandError."""
    with command_errors(EXIT_USAGE):
        return await read_profile(file, encoding=encoding, delimiter=delimiter, watching=view)


def _language(profile: Profile) -> str:
    """Of the columns' names."""
    return language_of(" ".join(one.name for one in profile.columns))


def _tell_profile(
    profile: Profile, column: str | None, language: Language | None, as_json: bool
) -> None:
    with command_errors(EXIT_USAGE):
        named = profile.column(column) if column is not None else None
    if as_json:
        print_json(profile.as_json() if named is None else dataclasses.asdict(named))
    elif named is None:
        _print(describe(profile, language or "en"))
    else:
        _print("\n".join(details(named, language or "en")))


def _tell_questions(found: Suggestions, file: Path, as_json: bool) -> None:
    questions = [one.as_json(file, number) for number, one in enumerate(found.found, 1)]
    if as_json:
        print_json({"suggestions": questions, "left_out": found.left_out})
    else:
        for number, one in enumerate(found.found, 1):
            _print(f"{number}. {one.question}\n   {one.why}\n   {one.command(file, number)}")
    if found.left_out:
        notes = stderr()
        told = f"{found.left_out} left out: they name columns that the file does not have"
        notes.print(told, style="yellow", markup=False, soft_wrap=True)


def _print(text: str) -> None:
    out = stdout()
    out.print(shown(text, out), markup=False, soft_wrap=True)
