"""`expertmesh data analyse`: a script for a goal, run in the sandbox, and a report."""

import contextlib
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

import typer

from expertmesh.assistants.asking.model import TextModel
from expertmesh.assistants.data.job import Job, analyse_file
from expertmesh.assistants.data.out_folder import check_out
from expertmesh.assistants.data.report import as_json
from expertmesh.assistants.data.workbench import LIMITS
from expertmesh.assistants.tables.describe import size_text
from expertmesh.assistants.view import View
from expertmesh.clients.live_lines import shown
from expertmesh.commands.assisting import EXIT_NOT_HELD, run_assistant
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

ENCODING = typer.Option(
    None, envvar="EXPERTMESH_ENCODING", help="Of a text file, such as cp1252. Default: found out."
)
DELIMITER = typer.Option(
    None, envvar="EXPERTMESH_DELIMITER", help="Between the cells of a CSV file. Default: found out."
)

_HELP = """Have the model write a script that answers a goal, run it, and save a report.

The script runs in the sandbox, beside a read-only copy of the data, without a network. What goes
wrong goes back to the model, up to 3 times. Then it is asked what follows from the output; numbers
of its conclusion that were not printed are marked.

--out gets report.md, analysis.py, what the script made, and every try in tries/. The conclusion
goes to standard output, everything else to standard error.

Pictures need matplotlib where this runs: pip install 'expertmesh[data]', which brings pandas, too.

Examples:

  expertmesh data analyse sales.csv "Which city sells most, and since when?" --out analysis

  expertmesh data suggest sales.csv

  expertmesh data analyse log.jsonl "How are response times spread?" --out times --json

Exit codes: 0 done; 1 failed; 2 usage; 3 not running; 5 no script did what it should; 130
interrupted.
"""


def register(group: typer.Typer) -> None:
    group.command("analyse", help=help_text(_HELP))(analyse)


@asks_model
def analyse(
    asked: Asked,
    file: Path = typer.Argument(..., help="The data."),
    goal: str | None = typer.Argument(
        None, help="What you want to know, in your words. Default: read from a pipe."
    ),
    out: Path = typer.Option(
        ..., envvar="EXPERTMESH_OUT", help="Folder for the report; new, or empty."
    ),
    force: bool = typer.Option(
        False,
        envvar="EXPERTMESH_FORCE",
        help="Also into a folder with files; an earlier analysis is replaced.",
    ),
    encoding: str | None = ENCODING,
    delimiter: str | None = DELIMITER,
    script_s: float = typer.Option(
        LIMITS.wall_s, envvar="EXPERTMESH_SCRIPT_S", min=1, help="Most seconds for the script."
    ),
    script_mib: int = typer.Option(
        LIMITS.memory_bytes >> 20,
        envvar="EXPERTMESH_SCRIPT_MIB",
        min=64,
        help="Most memory for the script, in MiB.",
    ),
    as_json_: bool = JSON,
) -> None:
    if goal is None and not sys.stdin.isatty():
        goal = sys.stdin.read()
    if not goal or not goal.strip():
        raise CommandError("there is no goal: give it after the file, or from a pipe", EXIT_USAGE)
    check_delimiter(delimiter)
    if not file.exists():
        raise CommandError(f"{file}: there is no such file", EXIT_USAGE)
    with command_errors(EXIT_USAGE):
        check_out(out, force=force)
    limits = dataclasses.replace(
        LIMITS, wall_s=script_s, cpu_s=script_s, memory_bytes=script_mib << 20
    )

    async def work(model: TextModel, view: View) -> int:
        with command_errors(), _wrong_input():
            job = await analyse_file(
                model,
                file,
                goal.strip(),
                out,
                force=force,
                encoding=encoding,
                delimiter=delimiter,
                limits=limits,
                watching=view,
            )
        view.close()
        if as_json_:
            report = str(job.report) if job.report else None
            print_json(as_json(job.analysis, job.profile, places=job.places, report_path=report))
        _tell(job, out, quiet=as_json_)
        return 0 if job.analysis.succeeded else EXIT_NOT_HELD

    raise typer.Exit(run_assistant(asked, work))


@contextlib.contextmanager
def _wrong_input() -> Iterator[None]:
    """What is wrong with what the user gave; the rest, such as a full disk, is a failure."""
    try:
        yield
    except ValueError as error:
        raise CommandError(str(error), EXIT_USAGE) from None


def check_delimiter(delimiter: str | None) -> None:
    """Raises CommandError."""
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '\r\n"'):
        raise CommandError(f"--delimiter: one character, got {delimiter!r}", EXIT_USAGE)


def _tell(job: Job, out: Path, *, quiet: bool) -> None:
    done, notes, answer = job.analysis, stderr(), stdout()

    def note(text: str, style: str = "dim") -> None:
        notes.print(shown(text, notes), style=style, markup=False, soft_wrap=True)

    if not done.has_plots:
        note("scripts find no plotting library: pip install 'expertmesh[data]'", "yellow")
    if not done.succeeded:
        last = done.tries[-1]
        note(
            f"no script did what it should, in {len(done.tries)} tries; the last: {last.fault}",
            "red",
        )
        note(f"all of them, with what came of them: {out / 'tries'}")
        return
    if not quiet:
        text = job.conclusion or done.output.strip()
        answer.print(shown(text, answer), markup=False, soft_wrap=True)
    if done.no_conclusion:
        note(
            f"there is no conclusion ({done.no_conclusion}); above is what the script printed",
            "yellow",
        )
    if done.unfounded:
        numbers = ", ".join(one.text for one in done.unfounded)
        note(f"not in the script's output: {numbers}", "yellow")
    for one in done.produced:
        note(f"{out / job.places[one.path]}: {size_text(one.size_bytes)}")
    tries = f"{len(done.tries)} tries, " if len(done.tries) > 1 else ""
    note(
        f"{job.report} ({tries}{done.seconds:.1f} s in the sandbox, "
        f"{done.completion_tokens} tokens)"
    )
