"""`expertmesh dev refactor`: change several files, with a check before and after."""

from pathlib import Path

import typer

from expertmesh.agent.loop.approval import Approve
from expertmesh.agent.loop.clip import clipped
from expertmesh.agent.record.run_folder import agent_state
from expertmesh.assistants.folder_work import Order
from expertmesh.assistants.model import TextModel
from expertmesh.assistants.prompts import language_of, prompt
from expertmesh.assistants.view import View
from expertmesh.clients.live_lines import shown
from expertmesh.commands.assisting import EXIT_NOT_HELD, run_assistant
from expertmesh.commands.dev.folder import (
    APPROVE,
    EXITS,
    I_KNOW,
    MAX_STEPS,
    ROUNDS,
    SANDBOX,
    WORK_DIR,
    interrupted,
    place,
    run_before,
    work_and_tell,
)
from expertmesh.commands.model_flags import Asked, asks_model
from expertmesh.console import EXIT_USAGE, JSON, CommandError, command_errors, help_text, stderr

_OUTPUT_BYTES = 2 << 10

_HELP = f"""Let the model change the code of a folder without changing what it does.

--check must succeed before anything is changed, and after. If it fails in the end, or the run ends
in another way before it is done, all files are put back as they were, unless you --keep them. The
diff goes to standard output, the steps to standard error.

What needs a question says --approve: without a terminal to ask on, a call that writes or runs ends
the run, unless you allow edits or all.

Examples:

  expertmesh dev refactor "Rename Shape.area to Shape.surface everywhere" --check "pytest -q"

  expertmesh dev refactor "Split load() in two" --approve all --check "make test" > my.diff

{EXITS}
"""


def register(group: typer.Typer) -> None:
    group.command("refactor", help=help_text(_HELP))(refactor)


@asks_model
def refactor(
    asked: Asked,
    task: str = typer.Argument(help="What to change."),
    work_dir: Path = WORK_DIR,
    check: str | None = typer.Option(
        None,
        envvar="EXPERTMESH_CHECK",
        help="Command that must succeed before and after, such as the tests.",
    ),
    keep: bool = typer.Option(
        False, "--keep", envvar="EXPERTMESH_KEEP", help="Keep the changes even if it fails."
    ),
    rounds: int = ROUNDS,
    max_steps: int = MAX_STEPS,
    approve: Approve = APPROVE,
    sandbox: str = SANDBOX,
    i_know: bool = I_KNOW,
    as_json: bool = JSON,
) -> None:
    if not task.strip():
        raise CommandError("there is no task: say what to change", EXIT_USAGE)
    at = place(work_dir, sandbox, i_know)
    if check is None:
        stderr().print("without --check nothing says whether it still works", style="yellow")
    else:
        with command_errors(EXIT_USAGE):
            before = run_before(at, check)
        if before is None:
            raise interrupted()
        if not before.passed:
            notes, text = stderr(), clipped(before.text, _OUTPUT_BYTES)
            notes.print(shown(text, notes), style="dim", markup=False, soft_wrap=True)
            raise CommandError(
                f"`{check}` fails before anything was changed; mend that first: "
                f"expertmesh dev debug -- '{check}'",
                EXIT_NOT_HELD,
            )
    language = language_of(task)
    name = "refactor" if check is None else "refactor_checked"

    async def work(model: TextModel, view: View) -> int:
        order = Order(
            task=prompt(name, language, task=task.strip(), check=check or ""),
            language=language,
            work_dir=at.work_dir,
            sandbox=at.sandbox,
            state=agent_state(),
            check=check,
            max_steps=max_steps,
            max_checks=rounds,
            approve=approve,
            secrets=(asked.api_key,) if asked.api_key else (),
            undo_unless_done=not keep,
        )
        return await work_and_tell(model, view, asked, order, as_json=as_json, must_change=True)

    raise typer.Exit(run_assistant(asked, work))
