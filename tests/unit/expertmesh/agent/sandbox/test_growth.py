"""How much a folder has grown is told of files with a name, without one, and of deep trees."""

import os
import time
from pathlib import Path

import pytest

from expertmesh.agent.sandbox import growth
from expertmesh.agent.sandbox.growth import Growth, measure, unlinked_bytes

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


def test_a_folder_that_is_too_deep_is_said_to_be(tmp_path: Path) -> None:
    place = os.open(tmp_path, os.O_RDONLY)
    for _ in range(60):
        os.mkdir("d" * 100, dir_fd=place)
        inner = os.open("d" * 100, os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = inner
    os.close(place)
    assert not measure(tmp_path).is_complete


def test_growth_is_counted_from_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "PAUSE_S", 0.0)
    monkeypatch.setattr(growth, "PAUSE_PER_LOOK", 0.0)
    write(tmp_path / "old", 3 * MEBIBYTE)
    time.sleep(0.02)
    watched = Growth(tmp_path, 2 * MEBIBYTE)
    assert not watched.is_over([])
    write(tmp_path / "new", MEBIBYTE)
    assert not watched.is_over([])
    (tmp_path / "old").unlink()
    write(tmp_path / "newer", 3 * MEBIBYTE)
    assert not watched.is_over([])  # by 1 MiB
    write(tmp_path / "newest", 2 * MEBIBYTE)
    assert watched.is_over([])


def test_files_without_a_name_are_found_where_they_are_held(tmp_path: Path) -> None:
    with open(tmp_path / "gone", "wb") as file:
        file.write(os.urandom(MEBIBYTE))
        file.flush()
        os.fsync(file.fileno())
        assert unlinked_bytes([os.getpid()], tmp_path) < MEBIBYTE
        (tmp_path / "gone").unlink()
        assert unlinked_bytes([os.getpid()], tmp_path) >= MEBIBYTE
    assert unlinked_bytes([2**22 + 1], tmp_path) == 0
