"""No path leads out of the work folder: not by dots, not by links, not by a swap in between."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expertmesh.agent.contained import Folder, OutsideError
from tests.support.examples import examples

SECRET = b"secret"


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_bytes(SECRET)
    inside = tmp_path / "work"
    (inside / "a" / "b").mkdir(parents=True)
    (inside / "a" / "file").write_bytes(b"mine")
    return inside


NAMES = ["..", ".", "a", "b", "file", "out", "in", "", "~", "\u00e9", "%2e%2e", "a\\..\\..", " "]


@examples(many=400)
@given(st.lists(st.sampled_from(NAMES), min_size=1, max_size=7), st.booleans())
def test_any_path_is_inside_or_refused(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], absolute: bool
) -> None:
    top = tmp_path_factory.getbasetemp() / "any_path"
    if not top.exists():
        (top / "outside").mkdir(parents=True)
        (top / "outside" / "file").write_bytes(SECRET)
        (top / "work" / "a" / "b").mkdir(parents=True)
        (top / "work" / "a" / "file").write_bytes(b"mine")
        (top / "work" / "out").symlink_to(top / "outside")
        (top / "work" / "in").symlink_to("a")
        (top / "work" / "b").symlink_to("../outside/file")
    folder = Folder(top / "work")
    path = "/".join(names)
    path = f"{top}/work/{path}" if absolute else path
    try:
        parts = folder.parts(path)
        data = folder.read(parts, 100)
    except (OutsideError, OSError, ValueError):
        return
    assert data == b"mine"
    assert ".." not in parts


@pytest.mark.parametrize(
    "path", ["../outside/file", "/etc/passwd", "a/../../outside/file", "a/../..", "x\0y", "/"]
)
def test_paths_that_lead_out_are_refused(work: Path, path: str) -> None:
    with pytest.raises(OutsideError):
        Folder(work).parts(path)


@pytest.mark.parametrize("target", ["../outside", "/etc", "a/../../outside"])
def test_links_that_lead_out_are_refused_and_others_followed(work: Path, target: str) -> None:
    (work / "out").symlink_to(target)
    (work / "in").symlink_to("a")
    folder = Folder(work)
    with pytest.raises(OutsideError):
        folder.parts("out/file")
    assert folder.read(folder.parts("in/file"), 100) == b"mine"


def test_what_belongs_to_the_agent_is_refused(work: Path) -> None:
    (work / "state").mkdir()
    (work / "link").symlink_to("state")
    folder = Folder(work, protected=[work / "state"])
    for path in ("state/x", "state", "link/x", "a/../state/x"):
        with pytest.raises(OutsideError, match="the agent itself"):
            folder.parts(path)
    assert folder.parts("states/x") == ("states", "x")


def state_of(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return found.st_ino, found.st_mode, found.st_mtime_ns, found.st_ctime_ns


def swap(folder: Path, target: Path) -> None:
    folder.rename(folder.with_name("moved"))
    folder.symlink_to(target)


@pytest.mark.parametrize("what", ["read", "write", "remove", "set_mode", "make_link", "set_time"])
def test_a_folder_that_became_a_link_in_between_is_refused(work: Path, what: str) -> None:
    folder = Folder(work)
    parts = folder.parts("a/file")
    outside = work.parent / "outside"
    swap(work / "a", outside)
    actions = {
        "read": lambda: folder.read(parts, 100),
        "write": lambda: folder.write(parts, b"theirs"),
        "remove": lambda: folder.remove(parts),
        "set_mode": lambda: folder.set_mode(parts, 0),
        "make_link": lambda: folder.make_link(("a", "new"), "x"),
        "set_time": lambda: folder.set_time(parts, 0),
    }
    before = state_of(outside / "file")
    with pytest.raises(OutsideError, match="is a link or a file"):
        actions[what]()
    assert (outside / "file").read_bytes() == SECRET
    assert state_of(outside / "file") == before
    assert [one.name for one in outside.iterdir()] == ["file"]


def test_a_file_that_became_a_link_in_between_is_not_followed(work: Path) -> None:
    folder = Folder(work)
    parts = folder.parts("a/file")
    (work / "a" / "file").unlink()
    (work / "a" / "file").symlink_to(work.parent / "outside" / "file")
    with pytest.raises(OSError, match="symbolic links"):
        folder.read(parts, 100)
    folder.write(parts, b"theirs")
    assert (work.parent / "outside" / "file").read_bytes() == SECRET
    assert (work / "a" / "file").read_bytes() == b"theirs"


def test_a_pipe_is_no_file_and_does_not_block(work: Path) -> None:
    os.mkfifo(work / "pipe")
    folder = Folder(work)
    with pytest.raises(ValueError, match="not a regular file"):
        folder.read(folder.parts("pipe"), 100)


def test_a_write_keeps_the_mode_and_makes_folders(work: Path) -> None:
    (work / "run.sh").write_text("old")
    (work / "run.sh").chmod(0o755)
    folder = Folder(work)
    folder.write(folder.parts("run.sh"), b"new")
    assert (work / "run.sh").stat().st_mode & 0o777 == 0o755
    folder.write(folder.parts("x/y/z"), b"deep")
    assert (work / "x" / "y" / "z").read_bytes() == b"deep"
    assert sorted(one.name for one in work.iterdir()) == ["a", "run.sh", "x"]


def test_a_failed_write_leaves_nothing(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        Folder(work).write(("a", "file"), b"new")
    assert [(one.name, one.is_file()) for one in sorted((work / "a").iterdir())] == [
        ("b", False),
        ("file", True),
    ]
    assert (work / "a" / "file").read_bytes() == b"mine"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can write for somebody else")
def test_what_root_writes_belongs_to_the_owner_of_the_folder(work: Path) -> None:
    os.chown(work, 1234, 1235)
    Folder(work).write(("new", "file"), b"x")
    for path in (work / "new", work / "new" / "file"):
        assert (path.stat().st_uid, path.stat().st_gid) == (1234, 1235)
