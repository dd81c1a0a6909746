"""`expertmesh agent show` and `undo`: what did a run do, and how is it put back?"""

import typer

from expertmesh.agent.record.run_folder import RunFolder, agent_state, find_run, runs_of
from expertmesh.agent.record.show import trace_lines
from expertmesh.agent.record.trace import append_event, read_trace
from expertmesh.agent.record.undo import undo as undo_run
from expertmesh.clients.live_lines import shown
from expertmesh.console import (
    EXIT_CODES_HELP,
    EXIT_USAGE,
    JSON,
    CommandError,
    command_errors,
    help_text,
    print_json,
    stderr,
    stdout,
)

RUN = typer.Argument(None, help="Id of the run, or its beginning. Default: the latest.")

_SHOW_HELP = f"""Print what a run did: answers with their thinking, calls, results, checks.

Examples:

  expertmesh agent show

  expertmesh agent show 20261130 --json

{EXIT_CODES_HELP}
"""

_UNDO_HELP = f"""Put the folder back as it was before a run, byte for byte.

Only what the run changed is touched. If somebody has changed one of these files since, nothing is
done and they are named; --force puts them back as well.

Examples:

  expertmesh agent undo

  expertmesh agent undo 20261130-061233 --force

{EXIT_CODES_HELP}
"""


def register(group: typer.Typer) -> None:
    group.command("show", help=help_text(_SHOW_HELP))(show)
    group.command("undo", help=help_text(_UNDO_HELP))(undo)


def show(run_id: str | None = RUN, as_json: bool = JSON) -> None:
    run = _found(run_id)
    with command_errors():
        events = read_trace(run.trace)
    if as_json:
        print_json(events)
        return
    out = stdout()
    for line in trace_lines(events):
        out.print(shown(line, out), markup=False, soft_wrap=True)


def undo(
    run_id: str | None = RUN,
    force: bool = typer.Option(
        False, envvar="EXPERTMESH_FORCE", help="Also files that were changed since the run."
    ),
    as_json: bool = JSON,
) -> None:
    run = _found(run_id)
    with command_errors():
        done = undo_run(run, force=force)
    if done.conflicts and not force:
        names = ", ".join(done.conflicts[:10])
        raise CommandError(
            f"changed since run {run.id}: {names}; nothing was done (--force puts these back, too)"
        )
    with command_errors():
        append_event(run.trace, "undone", restored=done.restored, lost=done.lost)
    if as_json:
        print_json({"id": run.id, "restored": done.restored, "lost": done.lost})
    else:
        out, notes = stdout(), stderr()
        for path in done.restored:
            out.print(shown(f"put back {path}", out), markup=False, soft_wrap=True)
        if not (done.restored or done.lost):
            notes.print(f"run {run.id} left nothing to put back", markup=False)
        for path in done.lost:
            text = f"not put back, too large to have been kept: {path}"
            notes.print(shown(text, notes), style="yellow", markup=False, soft_wrap=True)
    if done.lost:
        raise typer.Exit(1)


def _found(run_id: str | None) -> RunFolder:
    with command_errors(EXIT_USAGE):
        return find_run(runs_of(agent_state()), run_id)
