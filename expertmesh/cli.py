"""`expertmesh`: which commands exist? Each group lives in `expertmesh/commands/`."""

import sys
from importlib.metadata import PackageNotFoundError, version

import typer

from expertmesh.commands import (
    bench,
    certs,
    chat,
    doctor,
    experts,
    model,
    plan,
    pool,
    running,
    serve,
    up,
)
from expertmesh.console import EXIT_CODES_HELP, CommandError

app = typer.Typer(
    name="expertmesh",
    help=(
        "Serve MiniMax-M2 and models of its shape with attention and expert pools as separate "
        "gRPC services.\n\n"
        "Start with `expertmesh up` (the whole system on this machine, bundled demonstration "
        "model) and `expertmesh chat`.\n\n"
        "Every flag has an environment twin: EXPERTMESH_<FLAG>, for example "
        "EXPERTMESH_HTTP_PORT=9000 for --http-port.\n\n" + EXIT_CODES_HELP
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for group in (up, running, chat, serve, pool, experts, plan, bench, model, doctor, certs):
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
    show_version: bool = typer.Option(
        False, "--version", help="Print the version.", callback=_print_version, is_eager=True
    ),
) -> None:
    pass


def main() -> None:
    """Run a command; what it cannot do is one clear line on standard error and an exit code."""
    try:
        app()
    except CommandError as error:
        sys.stderr.write(f"expertmesh: {error}\n")
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(1)  # the reader of our output has gone
