"""A sandbox is given no folder that holds more than work, and shows no more than programs need."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from expertmesh.agent.sandbox.folders import places as module
from expertmesh.agent.sandbox.folders.drop_root import can_reach, identity_for
from expertmesh.agent.sandbox.folders.identity import Identity, as_user
from expertmesh.agent.sandbox.folders.placeholders import make_missing, remove_empty
from expertmesh.agent.sandbox.folders.places import environment, lay_out
from expertmesh.agent.sandbox.policy import SandboxUnavailableError
from tests.support.expertmesh.sandbox.users import some_user
from tests.support.expertmesh.sandbox.working import open_folder
from tests.support.places import ROOT


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    "folder", ["/", "/etc", "/usr", "/home", "/tmp", "/root", "/proc/self", "/etc/ssl", "/dev/shm"]
)
def test_the_systems_folders_are_no_work_folders(folder: str) -> None:
    if Path(folder).is_dir():
        with pytest.raises(ValueError, match=r"is the system's|your home"):
            lay_out(Path(folder), "workspace", (), None)


def test_the_home_folder_and_what_holds_it_are_no_work_folders(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(work / "homes" / "me"))
    (work / "homes" / "me" / "project").mkdir(parents=True)
    for folder in (work, work / "homes", work / "homes" / "me"):
        with pytest.raises(ValueError, match="holds your home folder"):
            lay_out(folder, "workspace", (), None)
    lay_out(work / "homes" / "me" / "project", "workspace", (), None)


def test_a_work_folder_that_is_none_is_refused(work: Path) -> None:
    (work / "file").touch()
    for folder in (work / "missing", work / "file"):
        with pytest.raises(ValueError, match="is not a folder"):
            lay_out(folder, "workspace", (), None)


def test_this_program_is_read_only_in_its_own_repository() -> None:
    assert ROOT / "expertmesh" in lay_out(ROOT, "workspace", (), None).protected
    with pytest.raises(ValueError, match="all of it would be read-only"):
        lay_out(ROOT / "expertmesh" / "agent", "workspace", (), None)


def test_an_interpreter_in_the_work_folder_is_read_only(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv = work / ".venv"
    (venv / "bin").mkdir(parents=True)
    monkeypatch.setattr(sys, "prefix", str(venv))
    found = lay_out(work, "workspace", (), None)
    assert venv in found.protected
    assert venv not in found.readable


def test_an_interpreter_elsewhere_is_readable_without_passwords(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv = tmp_path / "venv"
    venv.mkdir()
    (venv / "pip.conf").write_text("index-url = https://me:secret@example.com")
    monkeypatch.setattr(sys, "prefix", str(venv))
    found = lay_out(work, "workspace", (), None)
    assert venv in found.readable
    assert found.hidden == (venv / "pip.conf",)


def test_a_home_folder_is_not_shown_for_the_sake_of_the_interpreter(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert tmp_path not in lay_out(work, "workspace", (), None).readable


def test_protected_paths_are_taken_from_the_work_folder(work: Path) -> None:
    protected = [Path("a/state"), work / "b", Path("/elsewhere"), Path("a/state/inner")]
    found = lay_out(work, "workspace", protected, None).protected
    assert set(found) == {work / ".git", work / "a" / "state", work / "b"}


def test_a_bare_repository_is_no_work_folder(work: Path) -> None:
    for name in ("HEAD", "objects", "refs"):
        (work / name).mkdir()
    with pytest.raises(ValueError, match="is a bare git repository"):
        lay_out(work, "workspace", (), None)


def test_a_symbolic_link_cannot_be_protected(work: Path) -> None:
    (work / ".git").symlink_to("/somewhere")
    with pytest.raises(ValueError, match=r"\.git is a symbolic link"):
        lay_out(work, "workspace", (), None)


def test_the_whole_folder_cannot_be_protected(work: Path) -> None:
    with pytest.raises(ValueError, match="all of it would be read-only"):
        lay_out(work, "workspace", [work], None)


def test_nothing_of_the_environment_is_passed_on(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "HOME", "USER", "LD_PRELOAD", "PYTHONPATH", "LANG"):
        monkeypatch.setenv(name, "/very-secret")
    found = environment(lay_out(work, "workspace", (), None), "/tmp")
    assert "very-secret" not in str(found)
    assert {"PATH", "HOME", "LANG"} <= found.keys()


def test_modules_that_commands_could_replace_are_warned_of(
    work: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "path", [str(work), "/usr/lib/python3"])
    lay_out(work, "workspace", (), None)
    assert [one.getMessage() for one in caplog.records] == [
        f"modules are imported from {work}, which commands can change"
    ]


def test_missing_paths_are_protected_by_their_first_missing_part(work: Path) -> None:
    (work / "there").mkdir()
    paths = [work / "there", work / "there" / "a" / "b", work / ".git"]
    present, made = make_missing(work, paths, None)
    assert present == [work / "there", work / "there" / "a", work / ".git"]
    assert made == [work / "there" / "a", work / ".git"]
    assert make_missing(work, paths[2:], None) == ([work / ".git"], [])
    (work / ".git" / "config").touch()
    remove_empty(made)
    assert sorted(one.name for one in work.rglob("*")) == [".git", "config", "there"]


@pytest.mark.skipif(os.getuid() != 0, reason="gives folders to other users, which is root's")
def test_root_becomes_the_folders_owner_and_nobody_else(work: Path) -> None:
    with pytest.raises(SandboxUnavailableError, match="belongs to root"):
        identity_for(work)
    os.chown(work, 1234, 0)
    assert identity_for(work) == Identity(1234, 65534)
    os.chown(work, 1234, 99)
    assert identity_for(work) == Identity(1234, 99)


@pytest.mark.skipif(os.getuid() == 0, reason="root is asked to become another")
def test_a_user_stays_one(work: Path) -> None:
    assert identity_for(work) is None


@pytest.mark.parametrize(
    ("mode", "uid", "gid", "reaches"),
    [
        (0o700, 7, 7, True), (0o700, 8, 7, False), (0o750, 8, 7, True), (0o070, 7, 7, False),
        (0o705, 8, 8, True), (0o711, 8, 8, True), (0o710, 8, 8, False),
    ],
)  # fmt: skip
@pytest.mark.skipif(os.getuid() != 0, reason="gives folders to other users, which is root's")
def test_reaching_is_judged_as_the_kernel_does(
    mode: int, uid: int, gid: int, reaches: bool
) -> None:
    with open_folder(some_user()) as top:  # pytest's own folders are closed to others
        folder = top / "folder"
        (folder / "inner").mkdir(parents=True)
        (folder / "inner").chmod(0o755)
        os.chown(folder, 7, 7)
        folder.chmod(mode)
        assert can_reach(Identity(uid, gid), folder / "inner") is reaches
        tried = subprocess.run(
            as_user(Identity(uid, gid), ["ls", str(folder / "inner")]), capture_output=True
        )
        assert (tried.returncode == 0) is reaches


def test_a_folder_that_the_user_cannot_reach_is_refused(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "can_reach", lambda identity, path: False)
    with pytest.raises(SandboxUnavailableError, match="not open to user 7"):
        lay_out(work, "workspace", (), Identity(7, 7))
