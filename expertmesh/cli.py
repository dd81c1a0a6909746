"""`expertmesh`: which commands exist? Each group lives in `expertmesh/commands/`."""

import os
import sys
from importlib.metadata import PackageNotFoundError, version

import typer

from expertmesh.commands import certs, chat, connect, doctor, pool, running, serve
from expertmesh.commands.agent import group as agent
from expertmesh.commands.bench import group as bench
from expertmesh.commands.data import group as data
from expertmesh.commands.dev import group as dev
from expertmesh.commands.experts import group as experts
from expertmesh.commands.model import group as model
from expertmesh.commands.plan import group as plan
from expertmesh.commands.up import group as up
from expertmesh.console import EXIT_CODES_HELP, CommandError
from expertmesh.help_pages import CommandGroup
from rpc.process.env_names import unknown_names_warning
from rpc.process.flags import shown_warning, shows

app = CommandGroup(
    name="expertmesh",
    help=(
        "Serve MiniMax-M2 and models of its shape, with attention and experts in separate gRPC "
        "services.\n\n"
        "Start with `expertmesh up` (the whole system on this machine, with the bundled "
        "demonstration model), then try `expertmesh chat`.\n\n"
        "Every flag can also be set in the environment, by the name that --help shows beside it: "
        "EXPERTMESH_<FLAG>, for example EXPERTMESH_HTTP_PORT=9000 for --http-port, or "
        "EXPERTMESH_<COMMAND>_<FLAG> where the same flag means something else elsewhere. The flag "
        "wins over the environment. An EXPERTMESH_ name that nothing reads gets a warning.\n\n"
        + EXIT_CODES_HELP
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

GROUPS = (
    up,
    running,
    chat,
    agent,
    dev,
    data,
    connect,
    serve,
    pool,
    experts,
    plan,
    bench,
    model,
    doctor,
    certs,
)
for group in GROUPS:
    group.register(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        try:
            sys.stdout.write(f"expertmesh {version('expertmesh')}\n")
        except PackageNotFoundError:
            sys.stdout.write("expertmesh (not installed)\n")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    show_version: bool = typer.Option(
        False, "--version", help="Print the version.", callback=_print_version, is_eager=True
    ),
) -> None:
    if context.invoked_subcommand == "serve":
        return  # the service checks its environment itself, and logs the warning
    warning = unknown_names_warning(os.environ)
    if warning:
        sys.stderr.write(f"expertmesh: {warning}\n")


def main() -> None:
    """Run a command; a failure is one clear line on standard error and an exit code."""
    arguments = sys.argv[1:]
    if arguments[:1] != ["serve"] and shows("--api-key", arguments):  # services warn themselves
        sys.stderr.write(f"expertmesh: {shown_warning('--api-key')}\n")
    try:
        app(prog_name="expertmesh")
    except CommandError as error:
        sys.stderr.write(f"expertmesh: {error}\n")
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(1)  # whatever read our output has closed the pipe
