"""What a script left: files, pictures that are some, and nothing that leads elsewhere."""

import os
from pathlib import Path

import pytest

from expertmesh.assistants.data import produced
from expertmesh.assistants.data.out_folder import OutFolder, check_out
from expertmesh.assistants.data.produced import Produced, copy_file, find_produced

PNG = b"\x89PNG\r\n\x1a\n" + bytes(10)
SVG = b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>'


def test_files_are_listed_with_their_sizes(tmp_path: Path) -> None:
    (tmp_path / "sales.csv").write_text("data")
    (tmp_path / "plot.png").write_bytes(PNG)
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "sums.csv").write_text("a,b\n")
    (tmp_path / "chart.svg").write_bytes(SVG)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "x.pyc").write_text("x")
    (tmp_path / ".git").mkdir()
    found, more = find_produced(tmp_path, ("sales.csv",))
    assert found == [
        Produced("chart.svg", len(SVG), True),
        Produced("plot.png", len(PNG), True),
        Produced("tables/sums.csv", 4, False),
    ]
    assert more == 0


def test_links_and_pipes_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "shadow.png").symlink_to("/etc/passwd")
    (tmp_path / "etc").symlink_to("/etc")
    os.mkfifo(tmp_path / "pipe.png")
    assert find_produced(tmp_path, ()) == ([], 0)
    for name in ("shadow.png", "pipe.png"):
        with pytest.raises(OSError, match=r"symbolic links|not a regular file"):
            copy_file(tmp_path / name, tmp_path / "copy")


@pytest.mark.parametrize(
    ("name", "data", "fault"),
    [("x.png", b"", "it is empty"), ("x.png", b"oops", "no PNG"), ("x.svg", b"<html>", "no SVG")],
)
def test_a_picture_that_is_none_is_named(
    tmp_path: Path, name: str, data: bytes, fault: str
) -> None:
    (tmp_path / name).write_bytes(data)
    ((one,), _) = find_produced(tmp_path, ())
    assert fault in one.fault
    assert not one.is_picture


def test_of_very_many_files_the_rest_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(produced, "MOST_FILES", 3)
    for number in range(5):
        (tmp_path / f"{number}.txt").write_text("x")
    found, more = find_produced(tmp_path, ())
    assert (len(found), more) == (3, 2)


def test_what_a_script_made_is_copied_under_names_that_do_no_harm(tmp_path: Path) -> None:
    work, out = tmp_path / "work", OutFolder(tmp_path / "out")
    work.mkdir()
    names = ["report.md", "a\nb.txt", "a\x1bb.txt", "A_B.txt", os.fsdecode(b"\xff.txt"), "plot.png"]
    for name in names:
        (work / name).write_text(name, errors="replace")
    (work / "tries").mkdir()
    (work / "tries" / "1.txt").write_text("x")
    found, _ = find_produced(work, ())
    places = out.keep_produced(work, found)
    assert len(set(places.values())) == len(found) == 7
    assert places["report.md"] == "report-2.md"
    assert places["tries/1.txt"] == "tries-2/1.txt"
    assert {places[name] for name in ("A_B.txt", "a\nb.txt", "a\x1bb.txt")} == {
        "A_B.txt", "a_b-2.txt", "a_b-3.txt",
    }  # fmt: skip
    assert all(place.isprintable() for place in places.values())
    assert all((out.path / place).is_file() for place in places.values())


def test_a_folder_with_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"--out: .* is not empty; .* --force"):
        OutFolder(tmp_path)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["mine.txt"]
    with pytest.raises(ValueError, match="is a file"):
        check_out(tmp_path / "mine.txt", force=True)


def test_force_replaces_an_earlier_analysis_and_nothing_else(tmp_path: Path) -> None:
    work, path = tmp_path / "work", tmp_path / "out"
    work.mkdir()
    path.mkdir()
    (work / "plot.png").write_bytes(PNG)
    (work / "sub").mkdir()
    (work / "sub" / "mine.txt").write_text("the script's")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (path / "sub").symlink_to(elsewhere)
    (path / "mine.txt").write_text("mine")
    for _ in range(2):
        out = OutFolder(path, force=True)
        out.keep_try(1, "print(1)", "1")
        out.keep_produced(work, find_produced(work, ())[0])
        out.keep_report("new")
        names = {one.name for one in path.iterdir()}
        assert names == {"mine.txt", "plot.png", "sub", "sub-2", "tries", "report.md"}
    assert not list(elsewhere.iterdir())
    assert (path / "mine.txt").read_text() == "mine"


def test_a_report_that_is_not_ours_is_kept(tmp_path: Path) -> None:
    (tmp_path / "report.md").write_text("mine")
    with pytest.raises(ValueError, match="report"):
        OutFolder(tmp_path, force=True)
    assert (tmp_path / "report.md").read_text() == "mine"
