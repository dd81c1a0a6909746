"""Finding, locking and distrusting what a cluster left behind."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from expertmesh.commands.running import cluster_report
from expertmesh.console import CommandError
from expertmesh.detach import end_leftovers
from expertmesh.state import RunDir, default_run_dir, is_alive


def test_the_default_folder_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_run_dir() == tmp_path / "expertmesh" / "cluster"
    monkeypatch.setenv("XDG_STATE_HOME", "relative/is/ignored")
    assert default_run_dir().is_relative_to(Path.home())


def test_a_process_is_named_by_pid_and_start_time() -> None:
    started_at = psutil.Process().create_time()
    assert is_alive(os.getpid(), started_at)
    assert not is_alive(os.getpid(), started_at - 3600)
    assert not is_alive(None, None)


def test_a_folder_is_held_by_one_supervisor(tmp_path: Path) -> None:
    folder = RunDir(tmp_path / "run")
    with folder.lock():
        with pytest.raises(CommandError, match="already runs"):
            RunDir(tmp_path / "run").lock()
    folder.lock().close()


def test_state_of_a_supervisor_that_has_gone_is_stale(tmp_path: Path) -> None:
    folder = RunDir(tmp_path)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    folder.write({"pid": gone.pid, "started_at": 1.0, "phase": "ready", "services": []})
    assert cluster_report(folder)["phase"] == "stale"


def test_an_unreadable_state_is_no_state(tmp_path: Path) -> None:
    (tmp_path / "cluster.json").write_text("{half")
    assert cluster_report(RunDir(tmp_path))["phase"] == "not running"


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CommandError, match="--run-dir"):
        RunDir(tmp_path / "file" / "run").lock()


def test_leftover_services_are_ended_but_a_reused_pid_is_not(tmp_path: Path) -> None:
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    started_at = psutil.Process(sleeper.pid).create_time()
    services = [
        {"name": "mine", "pid": sleeper.pid, "started_at": started_at},
        {"name": "stranger", "pid": os.getpid(), "started_at": 1.0},
    ]
    assert end_leftovers({"services": services}) == ["mine"]
    assert sleeper.wait(10) != 0
