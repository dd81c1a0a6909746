"""Finding and locking what a cluster left behind, and not trusting it."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from expertmesh.cluster.detach import end_leftovers
from expertmesh.cluster.state import (
    RunDir,
    default_run_dir,
    find_run_dir,
    is_alive,
    running_url,
)
from expertmesh.commands.running import cluster_report
from expertmesh.console import EXIT_USAGE, CommandError
from expertmesh.state_root import state_root


def test_the_default_folder_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_run_dir(8000) == tmp_path / "expertmesh" / "cluster-8000"
    monkeypatch.setenv("XDG_STATE_HOME", "relative/is/ignored")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_run_dir(8000).is_relative_to(tmp_path)


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "expertmesh"


def running(folder: RunDir, url: str) -> None:
    """Write what a cluster leaves there, with this process as its supervisor."""
    folder.create()
    started_at = psutil.Process().create_time()
    folder.write({"pid": os.getpid(), "started_at": started_at, "phase": "ready", "url": url})


def test_clusters_on_other_ports_are_not_in_each_others_way(root: Path) -> None:
    with RunDir(default_run_dir(8000)).lock(), RunDir(default_run_dir(8501)).lock():
        with pytest.raises(CommandError, match="already runs"):
            RunDir(default_run_dir(8000)).lock()


def test_clusters_on_any_port_each_take_a_folder_and_give_it_back(root: Path) -> None:
    first = RunDir(default_run_dir(0))
    with first.lock():
        assert default_run_dir(0) != first.path
        with RunDir(default_run_dir(0)).lock():
            assert default_run_dir(0).name == "cluster-any-3"
    assert default_run_dir(0) == first.path


def test_the_one_that_runs_is_found_on_whatever_port(root: Path) -> None:
    assert running_url(None) is None
    assert find_run_dir(None).path == default_run_dir(8000)
    stale = RunDir(default_run_dir(8000))
    stale.create()
    stale.write({"pid": 2**22 - 3, "started_at": 1.0, "phase": "failed", "url": "http://old"})
    assert find_run_dir(None).path == stale.path, "the one last used, to say how it ended"
    running(RunDir(default_run_dir(8501)), "http://127.0.0.1:8501")
    assert running_url(None) == "http://127.0.0.1:8501"
    assert running_url(stale.path) is None


def test_of_several_that_run_somebody_has_to_say_which(root: Path) -> None:
    running(RunDir(default_run_dir(8501)), "http://127.0.0.1:8501")
    running(RunDir(default_run_dir(8502)), "http://127.0.0.1:8502")
    with pytest.raises(CommandError, match=r"--run-dir: .*8501.*8502") as caught:
        find_run_dir(None)
    assert caught.value.exit_code == EXIT_USAGE
    assert running_url(default_run_dir(8502)) == "http://127.0.0.1:8502"


def test_run_folders_are_private(root: Path) -> None:
    folder = RunDir(default_run_dir(8000))
    root.mkdir(mode=0o777)
    root.chmod(0o775)
    folder.create()
    assert [path.stat().st_mode & 0o777 for path in (root, folder.path)] == [0o700, 0o700]
    elsewhere = RunDir(root.parent / "given" / "run")
    elsewhere.create()
    assert elsewhere.path.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_others_may_write_to_is_neither_used_nor_believed(tmp_path: Path) -> None:
    folder = RunDir(tmp_path / "run")
    running(folder, "http://127.0.0.1:1")
    folder.path.chmod(0o757)
    for use in (folder.lock, folder.read, lambda: cluster_report(folder)):
        with pytest.raises(CommandError, match=r"writable by others \(mode 757"):
            use()


def test_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    real = RunDir(tmp_path / "real")
    running(real, "http://127.0.0.1:1")
    (tmp_path / "link").symlink_to(real.path)
    for use in (RunDir(tmp_path / "link").lock, RunDir(tmp_path / "link").read):
        with pytest.raises(CommandError, match="symbolic link"):
            use()


def test_another_users_folder_is_refused_and_by_default_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = RunDir(tmp_path / "run")
    folder.create()
    owner = os.geteuid()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(CommandError, match=f"owned by user {owner}, not by {owner + 1}"):
        folder.lock()
    assert state_root().name == f"expertmesh-{owner + 1}"
    assert not state_root().is_relative_to(tmp_path), "sudo keeps HOME"


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
