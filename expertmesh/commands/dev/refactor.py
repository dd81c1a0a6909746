"""`expertmesh dev refactor`: change several files, with a check before and after."""

import typer

from expertmesh.agent.loop.clip import clipped
from expertmesh.assistants.prompts import language_of, prompt
from expertmesh.clients.live_lines import shown
from expertmesh.commands.assisting import EXIT_NOT_HELD
from expertmesh.commands.dev.folder import EXITS, Place, run_before, work_and_tell, works_in_folder
from expertmesh.commands.model_flags import Asked, asks_model
from expertmesh.console import EXIT_USAGE, CommandError, help_text, stderr

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
@works_in_folder
def refactor(
    at: Place,
    asked: Asked,
    task: str = typer.Argument(help="What to change."),
    check: str | None = typer.Option(
        None,
        envvar="EXPERTMESH_CHECK",
        help="Command that must succeed before and after, such as the tests.",
    ),
    keep: bool = typer.Option(
        False, "--keep", envvar="EXPERTMESH_KEEP", help="Keep the changes even if it fails."
    ),
) -> None:
    if not task.strip():
        raise CommandError("there is no task: say what to change", EXIT_USAGE)
    if check is None:
        stderr().print("without --check nothing says whether it still works", style="yellow")
    else:
        before = run_before(at, check)
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
    told = prompt(name, language, task=task.strip(), check=check or "")
    work_and_tell(at, asked, told, language, check, keep=keep, must_change=True)
