"""What `make` starts, as seen from a terminal."""

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.places import ROOT

LIMIT_S = 30.0
REPORT = """#!{python}
import os, sys
terminal = os.open("/dev/tty", os.O_RDWR)
print("ARGUMENTS", *sys.argv[1:])
print("FOREGROUND", os.tcgetpgrp(terminal) == os.getpgrp(), "KEYS", os.isatty(0), flush=True)
"""


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """An environment that is up to date, whose programs say how they were called."""
    programs = tmp_path / "venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("python", "expertmesh"):
        (programs / name).write_text(REPORT.format(python=sys.executable))
        (programs / name).chmod(0o755)
    for stamp in (".expertmesh-run", ".expertmesh-env"):
        (tmp_path / "venv" / stamp).write_text("")
    return tmp_path / "venv"


def make_in_a_terminal(venv: Path, *arguments: str, **environ: str) -> str:
    """The output of a make with a terminal of its own."""
    pid, terminal = pty.fork()
    if pid == 0:
        command = ["make", "-C", str(ROOT), f"VENV={venv}", *arguments]
        os.execvpe("make", command, {"PATH": os.environ["PATH"], **environ})
    output, deadline = b"", time.monotonic() + LIMIT_S
    try:
        while True:
            ready, _, _ = select.select([terminal], [], [], deadline - time.monotonic())
            assert ready, f"stopped by the terminal? {output!r}"
            try:
                part = os.read(terminal, 4096)
            except OSError:  # Linux's way to say that nobody holds the other end any more
                break
            if not part:
                break
            output += part
    finally:
        os.close(terminal)  # hangs up: processes that are left get SIGHUP
        os.waitpid(pid, 0)
    return output.decode()


def test_the_compose_tests_have_the_terminal_but_no_keys(venv: Path) -> None:
    """In the background their first output would stop them; with input a container waits."""
    shown = make_in_a_terminal(venv, "test-compose")
    assert "tests/compose" in shown
    assert "FOREGROUND True KEYS False" in shown


def test_make_run_takes_a_port_and_leaves_it_to_the_environment_otherwise(venv: Path) -> None:
    assert "ARGUMENTS up --ask" in make_in_a_terminal(venv, "run")
    assert "ARGUMENTS up --http-port 8501 --ask" in make_in_a_terminal(venv, "run", "PORT=8501")
    shown = make_in_a_terminal(venv, "run", EXPERTMESH_HTTP_PORT="8501")
    assert "ARGUMENTS up --ask" in shown


def test_make_run_installs_nothing_that_only_tests_need(venv: Path) -> None:
    (venv / ".expertmesh-run").unlink()
    (venv / ".expertmesh-env").unlink()
    shown = make_in_a_terminal(venv, "run")
    assert "ARGUMENTS -m pip install --editable .\r\n" in shown
    assert "[test]" not in shown


SANITIZER = """#!/bin/sh
echo "SANITIZER $* CACHE ${PYTORCH_NO_CUDA_MEMORY_CACHING:-on}"
"""


def test_kernels_on_a_gpu_are_checked_for_bounds_and_for_races(venv: Path, tmp_path: Path) -> None:
    """Memcheck without torch's cache of memory, in which a wrong address is a right one."""
    programs = tmp_path / "toolkit"
    programs.mkdir()
    (programs / "compute-sanitizer").write_text(SANITIZER)
    (programs / "compute-sanitizer").chmod(0o755)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    shown = make_in_a_terminal(venv, "test-sanitize-gpu", PATH=path)
    runs = [line for line in shown.splitlines() if line.startswith("SANITIZER ")]
    assert [re.search(r"--tool (\w+)", run)[1] for run in runs] == ["memcheck", "racecheck"]
    assert [run.rpartition(" ")[2] for run in runs] == ["1", "on"]
    assert all("--error-exitcode 9" in run and "test_attention.py" in run for run in runs)


def test_without_the_toolkit_they_are_not_checked_and_it_is_said(
    venv: Path, tmp_path: Path
) -> None:
    programs = tmp_path / "no toolkit"
    programs.mkdir()
    make = shutil.which("make")
    assert make is not None
    (programs / "make").symlink_to(make)
    shown = make_in_a_terminal(venv, "test-sanitize-gpu", PATH=str(programs))
    assert "compute-sanitizer is not on PATH" in shown
    assert "Error 1" in shown


def test_every_test_that_it_names_is_there() -> None:
    named = re.findall(r"\btests/[\w/.]+", (ROOT / "Makefile").read_text())
    assert len(named) > 3
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_target_of_the_readme_is_there() -> None:
    shown = subprocess.run(
        ["make", "-C", str(ROOT), "help"], capture_output=True, text=True, check=True
    ).stdout
    assert {"run", "test", "test-compose"} <= {
        line.split()[1] for line in shown.splitlines() if line.startswith("  make ")
    }
