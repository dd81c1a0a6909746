"""`expertmesh dev debug`: run a command, and have the model mend what makes it fail."""

import shlex

import typer

from expertmesh.agent.loop.clip import clipped
from expertmesh.agent.loop.verify import Check
from expertmesh.assistants.error_places import code_around
from expertmesh.assistants.prompts import language_of, prompt
from expertmesh.assistants.reviewing.passages import fenced
from expertmesh.assistants.reviewing.review import language_of_code
from expertmesh.commands.dev.folder import EXITS, Place, run_before, work_and_tell, works_in_folder
from expertmesh.commands.model_flags import Asked, asks_model
from expertmesh.console import (
    EXIT_USAGE,
    CommandError,
    help_text,
    print_json,
    stderr,
)

_OUTPUT_BYTES = 6 << 10

_HELP = f"""Run a command in the sandbox; while it fails, let the model find the cause and mend it.

The model gets the output and the lines that it speaks of, looks further with tools, and edits
files in the folder. The command is run again whenever it says that it is done, --rounds times at
most. The diff goes to standard output, the steps to standard error; `expertmesh agent undo` puts
the folder back, and `expertmesh agent show` prints what was done.

What needs a question says --approve: without a terminal to ask on, a call that writes or runs ends
the run, unless you allow edits or all. The command itself is yours and is always run.

Examples:

  expertmesh dev debug -- pytest -q

  expertmesh dev debug --approve all --hint "It worked with three columns" -- python report.py

  expertmesh dev debug --dir project --approve edits --json -- "make test 2>&1 | tail -50"

{EXITS}
"""


def register(group: typer.Typer) -> None:
    group.command("debug", help=help_text(_HELP))(debug)


@asks_model
@works_in_folder
def debug(
    at: Place,
    asked: Asked,
    command: list[str] = typer.Argument(
        metavar="CMD", help="The command that fails; as one argument, it is a shell's line."
    ),
    hint: str | None = typer.Option(
        None, envvar="EXPERTMESH_HINT", help="What you know of the fault, in your words."
    ),
) -> None:
    line = command[0] if len(command) == 1 else shlex.join(command)
    if not line.strip():
        raise CommandError("there is no command: give it after --", EXIT_USAGE)
    before = run_before(at, line)
    if before.passed:
        stderr().print(f"nothing to debug: `{line}` succeeds", markup=False, soft_wrap=True)
        if at.as_json:
            print_json({"ending": "done", "changes": [], "diff": "", "steps": 0})
        return
    language, task = _task(at, before, hint)
    work_and_tell(at, asked, task, language, line)


def _task(at: Place, before: Check, hint: str | None) -> tuple[str, str]:
    """The language, and what the model is told."""
    passages = code_around(before.text, at.work_dir)
    texts = [row.text for one in passages for row in one.rows]
    language = language_of(hint) if hint else language_of_code(texts)
    code = "\n\n".join(f"{one.file}:\n{one.block()}" for one in passages)
    task = prompt(
        "debug",
        language,
        command=before.command,
        hint=f"\n{hint.strip()}\n" if hint and hint.strip() else "",
        output=fenced(clipped(before.text, _OUTPUT_BYTES)),
        code=code,
    )
    return language, task.strip()
