"""A folder's size is told whatever somebody does to hide it."""

import os
import threading
import time
from pathlib import Path

import pytest

from expertmesh.agent.sandbox.folders.removal import remove_tree
from expertmesh.agent.sandbox.process import folder_size
from expertmesh.agent.sandbox.process.folder_size import measure

MEBIBYTE = 1 << 20


def write(path: Path, size_bytes: int) -> None:
    path.write_bytes(os.urandom(size_bytes))


def test_all_files_of_a_tree_are_measured_and_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    write(tmp_path / "a" / "b" / "file", MEBIBYTE)
    write(tmp_path / "file", MEBIBYTE)
    (tmp_path / "link").symlink_to("/usr")
    size = measure(tmp_path)
    assert size.is_complete
    assert 2 * MEBIBYTE <= size.size_bytes < 3 * MEBIBYTE


def test_what_was_changed_since_the_start_was_not_there_before(tmp_path: Path) -> None:
    write(tmp_path / "old", MEBIBYTE)
    time.sleep(0.02)
    started_s = time.time()
    time.sleep(0.02)
    write(tmp_path / "new", MEBIBYTE)
    assert MEBIBYTE <= measure(tmp_path, before_s=started_s).size_bytes < 2 * MEBIBYTE


def deep(top: Path, levels: int) -> int:
    """The innermost of so many folders in folders, open."""
    place = os.open(top, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d" * 100, dir_fd=place)
        inner = os.open("d" * 100, os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = inner
    return place


def test_what_is_deeper_than_any_path_counts(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    innermost = deep(top, 400)
    file = os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=innermost)
    os.write(file, os.urandom(MEBIBYTE))
    os.close(file)
    os.close(innermost)
    size = measure(top)
    assert (size.is_complete, size.is_too_deep) == (True, False)
    assert MEBIBYTE <= size.size_bytes < 4 * MEBIBYTE
    remove_tree(top)  # pytest could not


def test_there_is_an_end_to_depth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_size, "MOST_BEGINNINGS", 2)
    top = tmp_path / "top"
    top.mkdir()
    os.close(deep(top, 110))
    assert measure(top).is_too_deep
    remove_tree(top)


@pytest.mark.skipif(os.getuid() == 0, reason="root opens what is closed")
def test_a_folder_that_its_owner_has_closed_counts_and_stays_closed(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    (closed / "a" / "b").mkdir(parents=True)
    write(closed / "file", MEBIBYTE)
    write(closed / "a" / "b" / "file", MEBIBYTE)
    for folder in (closed / "a", closed):
        folder.chmod(0o000)
    assert 2 * MEBIBYTE <= measure(tmp_path).size_bytes < 3 * MEBIBYTE
    assert closed.stat().st_mode & 0o777 == 0
    closed.chmod(0o700)
    assert (closed / "a").stat().st_mode & 0o777 == 0
    (closed / "a").chmod(0o700)


def test_a_folder_that_turns_into_a_link_does_not_lead_out(tmp_path: Path) -> None:
    work, outside = tmp_path / "work", tmp_path / "outside"
    (work / "a" / "b").mkdir(parents=True)
    (outside / "b").mkdir(parents=True)
    write(outside / "b" / "large", 4 * MEBIBYTE)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            (work / "a").rename(work / "real")
            (work / "a").symlink_to(outside)
            (work / "a").unlink()
            (work / "real").rename(work / "a")

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        assert max(measure(work).size_bytes for _ in range(300)) < MEBIBYTE
    finally:
        stop.set()
        thread.join()


def test_it_does_not_take_longer_than_it_may(tmp_path: Path) -> None:
    size = measure(tmp_path, most_s=-1.0)
    assert not size.is_complete
