"""`expertmesh agent`: let the model work on a task with tools; show and undo what it did."""

import sys
from pathlib import Path
from typing import Any

import typer

from expertmesh.agent.loop.approval import Approve
from expertmesh.agent.outward import Outward
from expertmesh.agent.toolbox import OWN_TOOLS
from expertmesh.clients.asked_server import API_KEY, BASE_URL, MODEL_NAME, THINKING
from expertmesh.clients.chat import client_key
from expertmesh.clients.router import API_KEY_FILE, RUN_DIR
from expertmesh.clients.transcript import Thinking
from expertmesh.cluster.state import DEFAULT_URL, running_url
from expertmesh.commands.agent import past
from expertmesh.commands.agent.run import Request, run_agent
from expertmesh.console import EXIT_USAGE, CommandError, help_text
from expertmesh.help_pages import CommandGroup, Group

EXITS = (
    "Exit codes: 0 done, and the check passed if there is one; 1 failed; 2 usage; 3 not running; "
    "4 out of steps; 5 the check failed; 6 not allowed; 130 interrupted."
)

_HELP = f"""Let the model work on a task with tools, in a folder, in a sandbox.

It reads and changes files, runs code and commands without a network, and ends when it answers and
--check, if given, passes. The answer goes to standard output, everything else to standard error.
What it may do without a question says --approve: without a terminal to ask on, ask means that a
call which writes or runs ends the run.

Each run is kept with its trace, readable by you alone: `show` prints it, `undo` puts the folder
back, --resume goes on with it, --replay makes its calls again without asking a model.

Examples:

  expertmesh agent "What is 123456 * 654321? Use python_executor"

  expertmesh agent "Fix the failing test" --dir . --check "pytest -q" --approve all

  echo "Sum up notes.txt" | expertmesh agent --tools file_editor,search_files --json

  expertmesh agent undo

{EXITS}
"""


class _AgentGroup(Group):
    """A group with a task of its own: whatever is not the name of a subcommand is the task."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        names_command = bool(args) and args[0] in self.commands
        ctx.allow_interspersed_args = not names_command
        rest: list[str] = super().parse_args(ctx, ["", *args] if names_command else args)
        return rest

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in self.commands:
            ctx.fail(f"{args[0]!r}: the task is one argument; put it in quotes")
        return super().resolve_command(ctx, args)


def register(app: typer.Typer) -> None:
    group = CommandGroup(kind=_AgentGroup, help=help_text(_HELP), invoke_without_command=True)
    group.callback()(agent)
    past.register(group)
    app.add_typer(group, name="agent")


def agent(
    context: typer.Context,
    task: str | None = typer.Argument(None, help="What to do. Default: read from a pipe."),
    work_dir: Path = typer.Option(
        Path(), "--dir", envvar="EXPERTMESH_DIR", help="The folder to work in."
    ),
    check: str | None = typer.Option(
        None,
        envvar="EXPERTMESH_CHECK",
        help="Command that succeeds when the task is done; it is run at most 3 times.",
    ),
    max_steps: int = typer.Option(
        30, envvar="EXPERTMESH_MAX_STEPS", min=1, help="Most answers of the model."
    ),
    tools: str | None = typer.Option(
        None,
        envvar="EXPERTMESH_TOOLS",
        help=f"The tools on offer, with commas between. Default: {', '.join(OWN_TOOLS)}.",
    ),
    approve: Approve = typer.Option(
        Approve.ASK,
        envvar="EXPERTMESH_APPROVE",
        help="What needs no question: nothing but reading (ask), edits too (edits), or anything "
        "(all). After a page from the web was read, writes and runs are asked about in any case.",
    ),
    sandbox: str = typer.Option(
        "workspace",
        envvar="EXPERTMESH_SANDBOX",
        help="What can be changed: workspace, the folder; read-only, nothing; off: there is no "
        "sandbox, which needs --i-know.",
    ),
    i_know: bool = typer.Option(
        False,
        envvar="EXPERTMESH_I_KNOW",
        help="Allow --sandbox off, and --approve all after a page from the web.",
    ),
    web: bool = typer.Option(
        False,
        envvar="EXPERTMESH_WEB",
        help="Let it read pages. What it knows can leave by the addresses that it asks for.",
    ),
    search: str | None = typer.Option(
        None,
        envvar="EXPERTMESH_SEARCH",
        help="Let it search the web, too, with searxng=URL, brave or tavily (whose keys are in "
        "BRAVE_API_KEY, TAVILY_API_KEY).",
    ),
    allow_host: list[str] = typer.Option(
        [],
        envvar="EXPERTMESH_ALLOW_HOST",
        help="HOST or HOST:PORT that may be read although it is not public. May be repeated.",
    ),
    retrieve: Path | None = typer.Option(
        None, envvar="EXPERTMESH_RETRIEVE", help="Folder of texts in which it can find passages."
    ),
    mcp: Path | None = typer.Option(
        None,
        envvar="EXPERTMESH_MCP",
        help="File that names MCP servers. They run outside the sandbox; each is asked about.",
    ),
    thinking: Thinking = THINKING,
    resume: str | None = typer.Option(
        None, envvar="EXPERTMESH_RESUME", help="Id of an earlier run to go on with."
    ),
    replay: str | None = typer.Option(
        None,
        envvar="EXPERTMESH_REPLAY",
        help="Trace, or id of a run, whose calls are made again with its recorded answers.",
    ),
    base_url: str | None = BASE_URL,
    run_dir: Path | None = RUN_DIR,
    api_key: str | None = API_KEY,
    api_key_file: Path | None = API_KEY_FILE,
    model: str | None = MODEL_NAME,
    temperature: float | None = typer.Option(
        None, envvar="EXPERTMESH_TEMPERATURE", help="0: greedy. Default: the checkpoint's."
    ),
    max_tokens: int | None = typer.Option(
        None, envvar="EXPERTMESH_MAX_TOKENS", help="Most tokens in one answer of the model."
    ),
    as_json: bool = typer.Option(
        False, "--json", envvar="EXPERTMESH_JSON", help="Print the outcome as JSON."
    ),
) -> None:
    if context.invoked_subcommand is not None:
        return
    if sandbox not in ("workspace", "read-only", "off"):
        raise CommandError(f"--sandbox: workspace, read-only or off, got {sandbox!r}", EXIT_USAGE)
    if not work_dir.is_dir():
        raise CommandError(f"--dir: {work_dir} is no folder", EXIT_USAGE)
    if not task and not (resume or replay) and not sys.stdin.isatty():
        task = sys.stdin.read().strip()
    given = {"temperature": temperature, "max_tokens": max_tokens}
    code = run_agent(
        Request(
            task=task,
            base_url="" if replay else base_url or running_url(run_dir) or DEFAULT_URL,
            api_key=client_key(api_key, api_key_file),
            model=model,
            asked_with={name: value for name, value in given.items() if value is not None},
            work_dir=work_dir,
            check=check,
            max_steps=max_steps,
            tools=_names(tools) if tools is not None else OWN_TOOLS,
            approve=approve,
            sandbox=sandbox,  # type: ignore[arg-type]
            i_know=i_know,
            outward=Outward(
                web=web, search=search, allow_hosts=tuple(allow_host), retrieve=retrieve, mcp=mcp
            ),
            thinking=thinking,
            as_json=as_json,
            resume=resume,
            replay=replay,
        )
    )
    raise typer.Exit(code)


def _names(listed: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in listed.split(",") if name.strip())
