"""The supervisor is not led outside, whatever a command asks it to do."""

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expertmesh.agent.sandbox.landlock.caller import Caller
from expertmesh.agent.sandbox.landlock.file_changes import FileChanges, NotOursError
from expertmesh.agent.sandbox.landlock.notifications import Call, Listener
from tests.support.examples import examples
from tests.support.expertmesh.sandbox.world import tree

FILE_BYTES = 100
NAMES = st.sampled_from(["a", "b", "link-out", "link-git", "ring", ".git", "config", "..", ".", ""])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)


class AlwaysWaiting:
    """This process is the caller and the supervisor at once."""

    def is_waiting(self, call: Call) -> bool:
        return True


def caller() -> Caller:
    return Caller(cast(Listener, AlwaysWaiting()), Call(1, os.getpid(), 0, ()))


class Place:
    def __init__(self, top: Path):
        self.work, self.outside = top / "work", top / "outside"
        for folder in (self.work / ".git", self.work / "a", self.outside / "a"):
            folder.mkdir(parents=True)
        for file in (self.work / ".git/config", self.work / "a/config", self.outside / "config"):
            file.write_text("as it was")
        (self.work / "link-out").symlink_to(self.outside)
        (self.work / "link-git").symlink_to(".git")
        (self.work / "ring").symlink_to("ring")
        self.changes = FileChanges([self.work], [self.work / ".git"], FILE_BYTES)
        self.folder = os.open(self.work, os.O_PATH)

    def state(self) -> dict[str, Any]:
        return {**tree(self.outside), **tree(self.work / ".git")}

    def open(self, name: str, flags: int, mode: int = 0o666) -> int:
        return self.changes.open(caller(), self.folder, name.encode(), flags, mode)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def operations(place: Place, one: bytes, other: bytes, flags: int) -> list[Callable[[], object]]:
    make, who, here = place.changes, caller(), place.folder
    return [
        lambda: os.close(make.open(who, here, one, flags, 0o666)),
        lambda: make.make_folder(who, here, one, 0o777),
        lambda: make.remove(who, here, one, flags & 0x200),
        lambda: make.move(who, (here, one), (here, other), flags & 3),
        lambda: make.link(who, (here, one), (here, other), 0),
        lambda: make.symlink(who, other, here, one),
        lambda: make.set_mode(who, here, one, 0o640, flags & 0x100),
        lambda: make.set_times(who, here, one, 0, flags & 0x100),
    ]


FLAGS = st.sampled_from([os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND]).flatmap(
    lambda access: st.sets(
        st.sampled_from([os.O_CREAT, os.O_TRUNC, os.O_EXCL, os.O_NOFOLLOW, os.O_DIRECTORY, 3])
    ).map(lambda more: access | sum(more))
)


@given(st.lists(st.tuples(st.integers(0, 7), PATHS, PATHS, FLAGS, st.booleans()), max_size=8))
@examples(300)
def test_nothing_outside_or_protected_changes(
    steps: list[tuple[int, str, str, int, bool]],
) -> None:
    with tempfile.TemporaryDirectory() as top:
        place = Place(Path(top).resolve())
        before = place.state()
        try:
            for which, one, other, flags, is_absolute in steps:
                first = os.path.join(place.work, one) if is_absolute else one
                with suppress(OSError, NotOursError):
                    operations(place, first.encode(), other.encode(), flags)[which]()
            assert place.state() == before
            assert place.work.is_dir()
        finally:
            os.close(place.folder)


def test_files_are_created_written_and_truncated(place: Place) -> None:
    file = place.open("a/new", os.O_CREAT | os.O_WRONLY)
    assert os.write(file, b"text") == 4
    assert os.get_inheritable(file) is False
    place.changes.truncate(caller(), os.fsencode(place.work / "a/new"), 2)
    assert (place.work / "a/new").read_text() == "te"
    file = place.open("a/new", os.O_WRONLY | os.O_TRUNC)
    assert (place.work / "a/new").read_text() == ""


def test_a_link_inside_is_followed(place: Place) -> None:
    (place.work / "inner").symlink_to("a/config")
    os.write(place.open("inner", os.O_WRONLY), b"AS")
    assert (place.work / "a/config").read_text() == "AS it was"
    with pytest.raises(OSError, match="symbolic link"):
        place.open("inner", os.O_WRONLY | os.O_NOFOLLOW)


def test_errors_are_the_kernels(place: Place) -> None:
    with pytest.raises(FileExistsError):
        place.open("a/config", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    with pytest.raises(FileNotFoundError):
        place.open("missing", os.O_WRONLY)
    with pytest.raises(IsADirectoryError):
        place.open("a", os.O_WRONLY)
    with pytest.raises(OSError, match="large"):
        place.changes.truncate(caller(), os.fsencode(place.work / "a/config"), FILE_BYTES + 1)
    with pytest.raises(FileExistsError):
        place.changes.make_folder(caller(), place.folder, b"a", 0o777)


@pytest.mark.parametrize("name", ["link-out/new", "link-git/new", ".git/new", "../outside/new"])
def test_what_is_not_ours_is_left_to_the_kernel(place: Place, name: str) -> None:
    with pytest.raises(NotOursError):
        place.open(name, os.O_CREAT | os.O_WRONLY)


def test_a_pipe_of_the_file_system_does_not_hold_the_supervisor_up(place: Place) -> None:
    os.mkfifo(place.work / "pipe")
    with pytest.raises(NotOursError):
        place.open("pipe", os.O_WRONLY)
