"""`expertmesh dev debug`: run a command, and have the model mend what makes it fail."""

import shlex
from pathlib import Path

import typer

from expertmesh.agent.loop.approval import Approve
from expertmesh.agent.loop.clip import clipped
from expertmesh.agent.loop.verify import Check
from expertmesh.agent.record.run_folder import agent_state
from expertmesh.assistants.error_places import code_around
from expertmesh.assistants.folder_work import Order
from expertmesh.assistants.model import TextModel
from expertmesh.assistants.passages import fenced
from expertmesh.assistants.prompts import language_of, prompt
from expertmesh.assistants.review import language_of_code
from expertmesh.assistants.view import View
from expertmesh.commands.assisting import run_assistant
from expertmesh.commands.dev.folder import (
    APPROVE,
    EXITS,
    I_KNOW,
    MAX_STEPS,
    ROUNDS,
    SANDBOX,
    WORK_DIR,
    Place,
    interrupted,
    place,
    run_before,
    work_and_tell,
)
from expertmesh.commands.model_flags import Asked, asks_model
from expertmesh.console import (
    EXIT_USAGE,
    JSON,
    CommandError,
    command_errors,
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
def debug(
    asked: Asked,
    command: list[str] = typer.Argument(
        metavar="CMD", help="The command that fails; as one argument, it is a shell's line."
    ),
    work_dir: Path = WORK_DIR,
    hint: str | None = typer.Option(
        None, envvar="EXPERTMESH_HINT", help="What you know of the fault, in your words."
    ),
    rounds: int = ROUNDS,
    max_steps: int = MAX_STEPS,
    approve: Approve = APPROVE,
    sandbox: str = SANDBOX,
    i_know: bool = I_KNOW,
    as_json: bool = JSON,
) -> None:
    line = command[0] if len(command) == 1 else shlex.join(command)
    if not line.strip():
        raise CommandError("there is no command: give it after --", EXIT_USAGE)
    at = place(work_dir, sandbox, i_know)
    with command_errors(EXIT_USAGE):
        before = run_before(at, line)
    if before is None:
        raise interrupted()
    if before.passed:
        stderr().print(f"nothing to debug: `{line}` succeeds", markup=False, soft_wrap=True)
        if as_json:
            print_json({"ending": "done", "changes": [], "diff": "", "steps": 0})
        return
    language, task = _task(at, before, hint)

    async def work(model: TextModel, view: View) -> int:
        order = Order(
            task=task,
            language=language,
            work_dir=at.work_dir,
            sandbox=at.sandbox,
            state=agent_state(),
            check=line,
            max_steps=max_steps,
            max_checks=rounds,
            approve=approve,
            secrets=(asked.api_key,) if asked.api_key else (),
        )
        return await work_and_tell(model, view, asked, order, as_json=as_json)

    raise typer.Exit(run_assistant(asked, work))


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
