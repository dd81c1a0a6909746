"""What do `dev debug` and `dev refactor` share? Flags, the run of the agent, and its report."""

import asyncio
import contextlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import typer

from expertmesh.agent.loop.approval import Approve
from expertmesh.agent.loop.loop import Ending
from expertmesh.agent.loop.verify import MAX_ROUNDS, Check, Verifier
from expertmesh.agent.record.run_folder import agent_state
from expertmesh.agent.sandbox.choose import choose_sandbox
from expertmesh.agent.sandbox.policy import Mode, Sandbox, SandboxUnavailableError
from expertmesh.agent.terminal.ask_terminal import TerminalAsk
from expertmesh.agent.terminal.report import EXIT_CODES, speed_line
from expertmesh.agent.terminal.view import RunView
from expertmesh.assistants.asking.model import TextModel
from expertmesh.assistants.folder_work import Order, Worked, work_in_folder
from expertmesh.assistants.view import View
from expertmesh.clients.live_lines import shown
from expertmesh.commands.assisting import EXIT_INTERRUPTED, run_assistant
from expertmesh.commands.interrupts import interruptible, term_as_interrupt
from expertmesh.commands.model_flags import Asked
from expertmesh.commands.shared_flags import with_flags
from expertmesh.console import (
    EXIT_FAILED,
    EXIT_USAGE,
    JSON,
    CommandError,
    command_errors,
    print_json,
    stderr,
    stdout,
)

_WORK_DIR = typer.Option(Path(), "--dir", envvar="EXPERTMESH_DIR", help="The folder to work in.")
_MAX_STEPS = typer.Option(
    30, envvar="EXPERTMESH_MAX_STEPS", min=1, help="Most answers of the model."
)
_ROUNDS = typer.Option(
    MAX_ROUNDS,
    envvar="EXPERTMESH_ROUNDS",
    min=1,
    max=20,
    help="So often may the model say that it is done; each time the command is run.",
)
_APPROVE = typer.Option(
    Approve.ASK,
    envvar="EXPERTMESH_APPROVE",
    help="What needs no question: nothing but reading (ask), edits too (edits), or anything (all).",
)
_SANDBOX = typer.Option(
    "workspace",
    envvar="EXPERTMESH_DEV_SANDBOX",
    help="workspace: only the folder can be changed; off: no sandbox, which needs --i-know.",
)
_I_KNOW = typer.Option(False, envvar="EXPERTMESH_I_KNOW", help="Allow --sandbox off.")
_FLAGS: dict[str, tuple[Any, Any]] = {
    "work_dir": (Path, _WORK_DIR),
    "rounds": (int, _ROUNDS),
    "max_steps": (int, _MAX_STEPS),
    "approve": (Approve, _APPROVE),
    "sandbox": (str, _SANDBOX),
    "i_know": (bool, _I_KNOW),
    "as_json": (bool, JSON),
}

EXITS = (
    "Exit codes: 0 done, and the command passes; 1 failed; 2 usage; 3 not running; 4 out of steps; "
    "5 the command fails; 6 not allowed; 130 interrupted."
)


@dataclass(frozen=True, kw_only=True)
class Place:
    """The folder to work in, the sandbox over it, and what may be done there."""

    work_dir: Path
    sandbox: Sandbox
    rounds: int
    max_steps: int
    approve: Approve
    as_json: bool


def works_in_folder(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command, whose first parameter is a `Place`, the flags that fill it."""
    return with_flags(command, _FLAGS, _place)


def _place(work_dir: Path, sandbox: str, i_know: bool, **others: Any) -> Place:
    """Raises CommandError."""
    if sandbox not in ("workspace", "off"):
        raise CommandError(f"--sandbox: workspace or off, got {sandbox!r}", EXIT_USAGE)
    if sandbox == "off" and not i_know:
        raise CommandError(
            "--sandbox off: what the model runs could then do all that you can; if that is what "
            "you want, add --i-know",
            EXIT_USAGE,
        )
    if not work_dir.is_dir():
        raise CommandError(f"--dir: {work_dir} is no folder", EXIT_USAGE)
    mode: Mode = "off" if sandbox == "off" else "workspace"
    try:
        with command_errors(EXIT_USAGE):
            chosen = choose_sandbox(work_dir, mode, protected=[agent_state()])
    except SandboxUnavailableError as error:
        raise CommandError(str(error)) from None
    return Place(work_dir=work_dir, sandbox=chosen, **others)


def run_before(at: Place, command: str) -> Check:
    """The command as the folder is. Raises CommandError; typer.Exit if it was interrupted."""

    async def check() -> Check:
        with term_as_interrupt():
            return await Verifier(command, at.sandbox).check()

    stderr().print(shown(f"running {command}", stderr()), markup=False, soft_wrap=True)
    try:
        with command_errors(EXIT_USAGE):
            return asyncio.run(check())
    except (KeyboardInterrupt, asyncio.CancelledError):
        stderr().print("interrupted", style="yellow")
        raise typer.Exit(EXIT_INTERRUPTED) from None


def work_and_tell(
    at: Place,
    asked: Asked,
    task: str,
    language: str,
    check: str | None,
    *,
    keep: bool = True,
    must_change: bool = False,
) -> NoReturn:
    """The agent's run with its report; the exit code says how it ended. Raises typer.Exit.

    `keep`: the changes even if it fails; `must_change`: a run that changed nothing has failed,
    whatever the model says.
    """
    order = Order(
        task=task,
        language=language,
        work_dir=at.work_dir,
        sandbox=at.sandbox,
        state=agent_state(),
        check=check,
        max_steps=at.max_steps,
        max_checks=at.rounds,
        approve=at.approve,
        secrets=(asked.api_key,) if asked.api_key else (),
        undo_unless_done=not keep,
    )

    async def work(model: TextModel, view: View) -> int:
        worked = await _work(model, view, asked, order)
        _tell(worked, at.as_json)
        if worked.ending is Ending.DONE and must_change and not worked.changes.files:
            return EXIT_FAILED
        return EXIT_CODES[worked.ending]

    raise typer.Exit(run_assistant(asked, work))


async def _work(model: TextModel, view: View, asked: Asked, order: Order) -> Worked:
    notes = stderr()
    steps = RunView(notes, asked.thinking)
    ask = TerminalAsk(notes) if sys.stdin.isatty() and notes.is_terminal else None
    view.close()
    with command_errors(), contextlib.closing(steps):
        return await work_in_folder(model, order, ask=ask, watcher=steps, guard=interruptible())


def _tell(worked: Worked, as_json: bool) -> None:
    """The diff on standard output, everything else on standard error."""
    notes, out = stderr(), stdout()
    progress, run_id = worked.session.agent.progress, worked.session.folder.id

    def say(text: str, style: str = "") -> None:
        notes.print(shown(text, notes), style=style, markup=False, soft_wrap=True)

    if as_json:
        print_json(worked.as_json())
    elif worked.diff:
        out.print(shown(worked.diff, out), markup=False, soft_wrap=True, end="")
    if progress.ending is Ending.DONE:
        say(progress.answer)
    else:
        say(f"{worked.ending}{': ' if progress.reason else ''}{progress.reason}", "red")
    for one in worked.changes.files:
        say(one.line())
    if not worked.changes.files:
        say("nothing was changed")
    if worked.changes.not_kept:
        say(f"{worked.changes.not_kept:,} files were too large to be kept for undo", "yellow")
    if progress.check is not None:
        result = "passes" if progress.check.passed else "fails"
        say(f"`{progress.check.command}` {result}")
    say(speed_line(worked.session), "dim")
    if worked.undone is not None and worked.undone.conflicts:
        names = ", ".join(worked.undone.conflicts[:10])
        say(f"not put back, since somebody changed it meanwhile: {names}", "red")
    elif worked.undone is not None:
        say("the folder was put back as it was before", "yellow")
        for path in worked.undone.lost:
            say(f"not put back, too large to have been kept: {path}", "red")
    elif worked.changes.files:
        say(f"undo: expertmesh agent undo {run_id}", "dim")
    say(f"trace: {worked.session.folder.trace}", "dim")
