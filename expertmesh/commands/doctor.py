"""`expertmesh doctor`: can this machine run ExpertMesh, and what would make it faster?"""

from dataclasses import asdict
from pathlib import Path

import typer
from rich.table import Table

from expertmesh.check import Verdict
from expertmesh.cluster.state import default_run_dir
from expertmesh.console import EXIT_CODES_HELP, EXIT_FAILED, JSON, help_text, print_json, stdout
from expertmesh.doctor import run_checks

_COLOURS = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.FAILED: "red"}

_HELP = f"""Check this machine: Python, torch, CPU, GPUs, memory, disk, limits, ports, a gRPC call.

Examples:

  expertmesh doctor

  expertmesh doctor --json | python -m json.tool

{EXIT_CODES_HELP} Warnings do not change the exit code; a failed check makes it 1.
"""


def register(app: typer.Typer) -> None:
    app.command(help=help_text(_HELP))(doctor)


def doctor(
    http_port: int = typer.Option(
        8000, envvar="EXPERTMESH_HTTP_PORT", help="The port that `up` would use."
    ),
    run_dir: Path | None = typer.Option(
        None, envvar="EXPERTMESH_RUN_DIR", help="The folder that `up` would use."
    ),
    as_json: bool = JSON,
) -> None:
    checks = run_checks(http_port, run_dir or default_run_dir(http_port))
    failed = any(check.verdict is Verdict.FAILED for check in checks)
    if as_json:
        print_json({"ok": not failed, "checks": [asdict(check) for check in checks]})
    else:
        table = Table("", "check", "found", box=None, show_header=False)
        table.columns[2].overflow = "fold"
        for check in checks:
            found = f"{check.found}\n{check.advice}" if check.advice else check.found
            table.add_row(f"[{_COLOURS[check.verdict]}]{check.verdict}[/]", check.name, found)
        stdout().print(table)
    if failed:
        raise typer.Exit(EXIT_FAILED)
