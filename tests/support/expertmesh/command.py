"""An `expertmesh` command in the test process: a process of its own costs over a second."""

import contextlib
import io
import subprocess

import pytest

from expertmesh import cli


def run_command(
    *arguments: str, stdin: str = "", **environment: str
) -> subprocess.CompletedProcess:
    """As `expertmesh` with these arguments, between pipes; any exception but an exit is a bug."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["expertmesh", *arguments])
        patch.setattr("sys.stdin", io.StringIO(stdin))
        for name, value in {"COLUMNS": "200", **environment}.items():
            patch.setenv(name, value)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                cli.main()
                status: object = 0
            except SystemExit as exit:
                status = exit.code
    assert status is None or isinstance(status, int), status
    return subprocess.CompletedProcess(arguments, status or 0, out.getvalue(), err.getvalue())
