"""Temporary folders go, whatever is in them."""

import os
from pathlib import Path

import pytest

from expertmesh.agent.sandbox.folders.removal import remove_tree
from expertmesh.agent.sandbox.folders.scratch import scratch_folder


def test_the_folder_is_there_and_then_gone() -> None:
    with scratch_folder(None) as folder:
        (folder / "file").write_text("x")
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not folder.exists()


def test_it_goes_also_after_an_error() -> None:
    with pytest.raises(LookupError), scratch_folder(None) as folder:
        raise LookupError
    assert not folder.exists()


def test_it_may_be_gone_before() -> None:
    with scratch_folder(None) as folder:
        folder.rmdir()
    assert not folder.exists()


def test_a_very_deep_tree_with_closed_folders_is_removed(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    place = os.open(top, os.O_RDONLY)
    for level in range(1100):
        os.mkdir("deep", dir_fd=place)
        os.mkdir("beside", 0o000, dir_fd=place)
        if level % 500 == 0:
            os.close(os.open("file", os.O_CREAT, 0o000, dir_fd=place))
        inner = os.open("deep", os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = inner
    os.close(place)
    remove_tree(top)
    assert not top.exists()


def test_links_are_removed_and_what_they_lead_to_stays(tmp_path: Path) -> None:
    top, outside = tmp_path / "top", tmp_path / "outside"
    (top / "inner").mkdir(parents=True)
    outside.mkdir(mode=0o755)
    (outside / "file").write_text("stays")
    for place in (top, top / "inner"):
        (place / "link").symlink_to(outside)
        (place / "file-link").symlink_to(outside / "file")
    remove_tree(top)
    assert (outside / "file").read_text() == "stays"
    assert not top.exists()
