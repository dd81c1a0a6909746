"""How much a folder has grown is told of files with a name and without one."""

import os
import time
from pathlib import Path

import pytest

from expertmesh.agent.sandbox.process import growth
from expertmesh.agent.sandbox.process.folder_size import Size
from expertmesh.agent.sandbox.process.growth import Growth, unlinked_bytes

MEBIBYTE = 1 << 20


def write(path: Path, size_bytes: int) -> None:
    path.write_bytes(os.urandom(size_bytes))


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


def test_a_folder_too_deep_to_be_measured_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growth, "measure", lambda folder, **_: Size(0, is_too_deep=True))
    assert Growth(tmp_path, MEBIBYTE).is_over([])


def test_of_a_folder_too_large_to_be_measured_in_time_the_disk_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = [10 * MEBIBYTE]
    monkeypatch.setattr(growth, "PAUSE_S", 0.0)
    monkeypatch.setattr(growth, "measure", lambda folder, **_: Size(9, is_complete=False))
    monkeypatch.setattr(growth, "_free_bytes", lambda folder: free[0])
    watched = Growth(tmp_path, 2 * MEBIBYTE)
    assert not watched.is_over([])
    free[0] = 9 * MEBIBYTE
    assert not watched.is_over([])
    free[0] = 7 * MEBIBYTE
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


def test_a_folder_that_is_removed_with_its_command_is_not_over(tmp_path: Path) -> None:
    (tmp_path / "temporary").mkdir()
    watched = Growth(tmp_path / "temporary", MEBIBYTE)
    (tmp_path / "temporary").rmdir()
    assert not watched.is_over([])
