"""Which sandboxes can be tried on this machine? What others need to skip with a reason."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from expertmesh.agent.sandbox.choose import choose_sandbox
from expertmesh.agent.sandbox.folders.identity import give_away
from expertmesh.agent.sandbox.policy import SandboxUnavailableError
from tests.support.expertmesh.sandbox.users import ROOT_USER, User, python_for, some_user

RUNNER = "tests.support.expertmesh.sandbox.runner"


@contextmanager
def open_folder(user: User) -> Iterator[Path]:
    """A folder of the user's that every user can pass through, unlike pytest's."""
    with tempfile.TemporaryDirectory(prefix="expertmesh-test-") as name:
        folder = Path(name).resolve()
        folder.chmod(0o755)
        user.own(folder)
        yield folder


@contextmanager
def work_folder() -> Iterator[Path]:
    """Where commands of a model may run; pytest's own folder is closed to whom they run as.

    Skips the test if there is no sandbox for it.
    """
    with tempfile.TemporaryDirectory(prefix="expertmesh-test-") as name:
        folder = Path(name)
        give_away(folder)
        try:
            choose_sandbox(folder)
        except SandboxUnavailableError as error:
            pytest.skip(str(error))
        yield folder


def start(starter: User, orders: dict[str, Any], **options: Any) -> subprocess.Popen[str]:
    """The runner, started as root or as a user."""
    variables = options.pop("variables", {})
    arguments = ["-P", "-m", RUNNER, json.dumps(orders)]
    return starter.start(
        arguments, Path("/"), variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )


def run(starter: User, orders: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
    """The outcomes of all runs. Fails with what the runner said if it does not end well."""
    process = start(starter, orders, **options)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err[-3000:]
    found: list[dict[str, Any]] = json.loads(out.splitlines()[-1])
    return found


@cache
def why_not(kind: str, starter: User) -> str:
    """Why this sandbox cannot be tried here, started by that user; empty if it can."""
    owner = some_user()
    if starter == ROOT_USER and os.getuid() != 0:
        return "the tests do not run as root"
    if not python_for(owner):
        return "no Python with the packages is open to other users than root"
    with open_folder(owner) as work:
        process = start(starter, {"kind": kind, "work": str(work), "runs": [{"argv": ["true"]}]})
        out, err = process.communicate(timeout=100)
    if process.returncode != 0:
        return f"{kind} does not work here: {(err.strip().splitlines() or ['?'])[-1]}"
    return "" if json.loads(out)[0]["exit_code"] == 0 else f"{kind} does not work here: {out}"
