"""`expertmesh dev tests`: a file of tests that pass, and that notice mistakes."""

from pathlib import Path

import typer

from expertmesh.assistants.asking.model import TextModel
from expertmesh.assistants.reviewing.passages import read_text
from expertmesh.assistants.reviewing.review import language_of_code
from expertmesh.assistants.testing.modules import Module, module_of
from expertmesh.assistants.testing.mutants import mutants
from expertmesh.assistants.testing.pytest_runs import NoPytestError
from expertmesh.assistants.testing.workshop import Workshop
from expertmesh.assistants.testing.write_tests import MOST_MUTANTS, TestWriter, WrittenTests
from expertmesh.assistants.view import View
from expertmesh.clients.live_lines import shown
from expertmesh.commands.assisting import EXIT_NOT_HELD, run_assistant
from expertmesh.commands.model_flags import Asked, asks_model
from expertmesh.console import (
    EXIT_FAILED,
    EXIT_USAGE,
    JSON,
    CommandError,
    command_errors,
    help_text,
    print_json,
    stderr,
    stdout,
)

_SHOWN_MISSED = 10

_HELP = """Write tests for a Python file, run them, and keep those that hold.

The project is copied, and the tests are run in the copy, in the sandbox. Tests that fail are given
back to the model, and left out if they still fail: they may be wrong, or the code may be. Then
small mistakes are made in the copy on purpose, one at a time. The file is saved only if the tests
notice at least one of them; how many, and which not, is reported.

What the file imports must be installed for the Python that runs expertmesh, and so must pytest.

Examples:

  expertmesh dev tests shapes.py

  expertmesh dev tests prices.py --function total --out test_total.py

Exit codes: 0 saved; 1 failed; 2 usage, such as a file that exists (--force); 3 not running; 5 not
saved, since the tests notice nothing; 130 interrupted.
"""


def register(group: typer.Typer) -> None:
    group.command("tests", help=help_text(_HELP))(write_tests)


@asks_model
def write_tests(
    asked: Asked,
    file: Path = typer.Argument(help="The Python file to test."),
    function: str | None = typer.Option(
        None, envvar="EXPERTMESH_FUNCTION", help="Only this function, or Class.method."
    ),
    out: Path | None = typer.Option(
        None,
        envvar="EXPERTMESH_DEV_TESTS_OUT",
        help="Default: test_NAME.py in the project's folder tests.",
    ),
    force: bool = typer.Option(
        False, envvar="EXPERTMESH_FORCE", help="Write over a file that is there."
    ),
    root: Path | None = typer.Option(
        None,
        envvar="EXPERTMESH_ROOT",
        help="The project's folder. Default: the nearest with a pyproject.toml or the like.",
    ),
    most_mutants: int = typer.Option(
        MOST_MUTANTS,
        "--mutants",
        envvar="EXPERTMESH_MUTANTS",
        min=1,
        max=1000,
        help="Most mistakes to make on purpose; each is a run of the tests.",
    ),
    as_json: bool = JSON,
) -> None:
    with command_errors(EXIT_USAGE):
        source = read_text(file)
        module = module_of(file, root)
        target = out if out is not None else module.root / "tests" / f"test_{file.stem}.py"
        if target.suffix != ".py":
            raise ValueError(f"--out: {target} is no Python file")
        if target.exists() and not force:
            raise ValueError(f"{target} exists; --force writes over it")
        try:
            mutants(source, [function] if function else (), 1)
        except SyntaxError as error:
            raise ValueError(f"{file}:{error.lineno}: this is no Python: {error.msg}") from None

    async def work(model: TextModel, view: View) -> int:
        with command_errors(EXIT_USAGE):
            workshop = Workshop(module.root)
        with workshop, command_errors(EXIT_USAGE):
            writer = TestWriter(
                model,
                workshop,
                module,
                source,
                file=_in_workshop(module, target),
                function=function,
                most_mutants=most_mutants,
                language=language_of_code([source]),
                watching=view,
            )
            try:
                written = await writer.write()
            except NoPytestError as error:
                raise CommandError(str(error), EXIT_FAILED) from None
        view.close()
        if written.holds:
            with command_errors():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(written.source, encoding="utf-8")
        _tell(written, module, target, as_json)
        return 0 if written.holds else EXIT_NOT_HELD

    raise typer.Exit(run_assistant(asked, work))


def _in_workshop(module: Module, target: Path) -> str:
    """Where it will be in the project, for the same conftest.py; else beside its tests."""
    target = target.resolve()
    inside = target.is_relative_to(module.root)
    return str(target.relative_to(module.root)) if inside else f"tests/{target.name}"


def _tell(written: WrittenTests, module: Module, target: Path, as_json: bool) -> None:
    notes, out = stderr(), stdout()

    def say(text: str, style: str = "") -> None:
        notes.print(shown(text, notes), style=style, markup=False, soft_wrap=True)

    if as_json:
        saved = str(target) if written.holds else None
        print_json({"file": saved, **written.as_json()})
    elif written.holds:
        out.print(shown(str(target), out), markup=False, soft_wrap=True)
    for name, why in written.left_out.items():
        say(f"left out: {name} fails: {why}; it is wrong, or the code is", "yellow")
    for one in written.missed[:_SHOWN_MISSED]:
        say(f"not noticed: {module.file}, {one.text()}")
    if len(written.missed) > _SHOWN_MISSED:
        say(f"... and {len(written.missed) - _SHOWN_MISSED} more (--json lists them)")
    say(f"{written.summary()}; {written.completion_tokens} tokens", "dim")
    if not written.holds:
        why = "notice none of the mistakes" if written.missed else "cannot be tried: no mistakes"
        say(f"not saved: the tests {why} that were made on purpose", "red")
