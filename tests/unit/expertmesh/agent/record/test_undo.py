"""A folder comes back byte for byte, and what others did meanwhile stays."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expertmesh.agent.contained import Folder
from expertmesh.agent.record.checkpoint import Checkpoint, walk
from expertmesh.agent.record.diff import compare
from expertmesh.agent.record.run_folder import RunFolder, new_run
from expertmesh.agent.record.undo import undo
from tests.support.examples import examples


def picture(folder: Path) -> dict[str, Any]:
    """Everything below a folder: kind, mode, content, time of files."""
    found: dict[str, Any] = {}
    for path, entry in walk(folder):
        content: Any = entry.target
        if entry.kind == "file":
            content = ((folder / path).read_bytes(), entry.mtime_ns)
        found[path] = (entry.kind, entry.mode, content)
    return found


def without_times(found: dict[str, Any]) -> dict[str, Any]:
    """A file that was written again with the same content has not changed."""
    return {
        path: (kind, mode, content[0] if kind == "file" else content)
        for path, (kind, mode, content) in found.items()
    }


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    (folder / "src" / "deep").mkdir(parents=True)
    (folder / "empty").mkdir(mode=0o750)
    (folder / "src" / "a.txt").write_text("x = 1\n")
    (folder / "src" / "deep" / "b.bin").write_bytes(bytes(range(256)))
    (folder / "run.sh").write_text("echo\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "link").symlink_to("src/a.txt")
    (folder / "dangling").symlink_to("/nowhere")
    os.utime(folder / "src" / "a.txt", ns=(10**18, 10**18 + 7))
    return folder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return new_run(tmp_path / "runs")


def checkpoint(work: Path, run: RunFolder, **limits: int) -> Checkpoint:
    return Checkpoint(Folder(work), run.checkpoint, **limits)


def test_whatever_a_command_does_is_put_back(work: Path, run: RunFolder) -> None:
    before = picture(work)
    kept = checkpoint(work, run)
    kept.before_run()
    shutil.rmtree(work / "src" / "deep")
    (work / "src" / "a.txt").unlink()
    (work / "src" / "a.txt").mkdir()
    (work / "src" / "a.txt" / "inside").write_text("new")
    (work / "empty").rmdir()
    (work / "empty").write_text("a file now")
    (work / "run.sh").chmod(0o600)
    (work / "link").unlink()
    (work / "link").symlink_to("elsewhere")
    (work / "dangling").unlink()
    (work / "new" / "deep").mkdir(parents=True)
    (work / "new" / "deep" / "file").write_text("new")
    kept.save_changes()
    done = undo(run)
    assert (done.conflicts, done.lost) == ([], [])
    assert picture(work) == before
    assert undo(run).restored == []


def test_only_what_the_editor_changed_is_looked_at(work: Path, run: RunFolder) -> None:
    before = picture(work)
    kept = checkpoint(work, run)
    folder = Folder(work)
    for parts in (("src", "a.txt"), ("made", "x", "new.txt"), ("src", "a.txt")):
        kept.before_change(parts)
        folder.write(parts, b"changed")
    (work / "users.txt").write_text("mine")
    found = kept.save_changes()
    assert sorted(found) == ["made", "made/x", "made/x/new.txt", "src/a.txt"]
    assert undo(run).conflicts == []
    (work / "users.txt").unlink()
    assert picture(work) == before


def test_edits_before_the_first_command_are_undone_too(work: Path, run: RunFolder) -> None:
    before = picture(work)
    kept = checkpoint(work, run)
    for parts in (("src", "a.txt"), ("new.txt",)):
        kept.before_change(parts)
        Folder(work).write(parts, b"by the editor")
    kept.before_run()
    (work / "src" / "a.txt").write_text("by a command")
    (work / "more.txt").write_text("by a command")
    kept.save_changes()
    assert undo(run).conflicts == []
    assert picture(work) == before


def test_what_somebody_changed_since_is_not_touched(work: Path, run: RunFolder) -> None:
    kept = checkpoint(work, run)
    kept.before_run()
    (work / "src" / "a.txt").write_text("the agent's")
    (work / "run.sh").write_text("the agent's")
    (work / "new").mkdir()
    (work / "new" / "file").write_text("the agent's")
    kept.save_changes()
    (work / "src" / "a.txt").write_text("the user's")
    (work / "own.txt").write_text("the user's")
    (work / "new" / "own.txt").write_text("the user's")
    left = picture(work)
    done = undo(run)
    assert (done.conflicts, done.restored) == (["src/a.txt"], [])
    assert picture(work) == left
    done = undo(run, force=True)
    assert (work / "src" / "a.txt").read_text() == "x = 1\n"
    assert (work / "run.sh").read_text() == "echo\n"
    assert (work / "own.txt").read_text() == (work / "new" / "own.txt").read_text() == "the user's"
    assert not (work / "new" / "file").exists()
    assert "new" in done.conflicts


def test_a_run_that_was_killed_is_undone_only_by_force(work: Path, run: RunFolder) -> None:
    before = picture(work)
    kept = checkpoint(work, run)
    kept.before_run()
    (work / "src" / "a.txt").write_text("half done")
    assert undo(run).conflicts == ["src/a.txt"]
    assert undo(run, force=True).restored == ["src/a.txt"]
    assert picture(work) == before


def test_nothing_is_written_through_a_link_that_the_run_left(
    work: Path, run: RunFolder, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.txt").write_text("theirs")
    kept = checkpoint(work, run)
    kept.before_run()
    shutil.rmtree(work / "src")
    (work / "src").symlink_to(outside)
    kept.save_changes()
    undo(run)
    assert (outside / "a.txt").read_text() == "theirs"
    assert sorted(os.listdir(outside)) == ["a.txt"]
    assert (work / "src" / "a.txt").read_text() == "x = 1\n"
    assert not (work / "src").is_symlink()


def test_what_did_not_fit_is_named_and_kept_if_the_editor_changes_it(
    work: Path, run: RunFolder
) -> None:
    (work / "large").write_bytes(b"x" * 5000)
    (work / "large2").write_bytes(b"y" * 5001)
    kept = checkpoint(work, run, max_bytes=4000)
    kept.before_run()
    assert kept.not_kept == 2
    kept.before_change(("large2",))
    assert kept.not_kept == 1
    for name in ("large", "large2", "run.sh"):
        (work / name).write_text("changed")
    kept.save_changes()
    done = undo(run)
    assert (done.lost, sorted(done.restored)) == (["large"], ["large2", "run.sh"])
    assert (work / "large").read_text() == "changed"
    assert (work / "large2").read_bytes() == b"y" * 5001


def test_in_a_folder_of_very_many_names_only_the_editors_changes_are_kept(
    work: Path, run: RunFolder
) -> None:
    kept = checkpoint(work, run, max_names=3)
    kept.before_run()
    assert (kept.is_whole, kept.is_too_large) == (False, True)
    kept.before_change(("run.sh",))
    for name in ("run.sh", "src/a.txt"):
        (work / name).write_text("changed")
    kept.save_changes()
    assert undo(run).restored == ["run.sh"]
    assert (work / "src" / "a.txt").read_text() == "changed"


def test_the_runs_own_folder_is_no_part_of_the_work(work: Path) -> None:
    runs = work / ".state"
    run = new_run(runs)
    kept = Checkpoint(Folder(work), run.checkpoint, left_out=runs)
    kept.before_run()
    assert not [path for path in kept.before if path.startswith(".state")]
    (work / "run.sh").unlink()
    kept.save_changes()
    assert undo(run).restored == ["run.sh"]


def test_names_that_are_no_utf_8(work: Path, run: RunFolder) -> None:
    name = os.fsencode(work) + b"/\xff\xfe"
    Path(os.fsdecode(name)).write_bytes(b"\x00\xff")
    before = picture(work)
    kept = checkpoint(work, run)
    kept.before_run()
    Path(os.fsdecode(name)).unlink()
    kept.save_changes()
    assert undo(run).conflicts == []
    assert picture(work) == before


def test_the_diff_counts_lines(work: Path, run: RunFolder) -> None:
    kept = checkpoint(work, run)
    kept.before_run()
    (work / "src" / "a.txt").write_text("x = 1\ny = 2\n-- z\n")
    (work / "src" / "deep" / "b.bin").unlink()
    (work / "note").write_text("no end")
    files, diff = compare(work, run.checkpoint / "files", kept.save_changes())
    assert [one.line() for one in files] == [
        "added note (+1 -0)",
        "changed src/a.txt (+2 -0)",
        "removed src/deep/b.bin",
    ]
    assert "+++ b/src/a.txt\n@@ -1 +1,3 @@\n x = 1\n+y = 2\n+-- z\n" in diff
    assert "+no end\n\\ No newline at end of file\n" in diff


NAMES = st.sampled_from(["a", "b", "a/c", "b/d", "a/c/e"])
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["write", "remove", "folder", "link", "mode"]), NAMES, st.binary(max_size=4)
    ),
    max_size=10,
)


def apply(folder: Path, what: str, name: str, data: bytes) -> None:
    path = folder / name
    try:
        if what == "write":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        elif what == "remove":
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        elif what == "folder":
            path.mkdir(parents=True)
        elif what == "link":
            path.symlink_to("a")
        else:
            path.chmod(0o700 | len(data))
    except OSError:
        pass  # it does not apply to what is there


@examples(many=150)
@given(CHANGES, CHANGES, st.booleans())
def test_any_changes_are_undone(
    tmp_path_factory: pytest.TempPathFactory, first: Any, then: Any, is_saved: bool
) -> None:
    top = tmp_path_factory.mktemp("any")
    work = top / "work"
    work.mkdir()
    for one in first:
        apply(work, *one)
    before = picture(work)
    run = new_run(top / "runs")
    kept = checkpoint(work, run)
    kept.before_run()
    for one in then:
        apply(work, *one)
    if is_saved:
        kept.save_changes()
    undo(run, force=not is_saved)
    assert without_times(picture(work)) == without_times(before)
    shutil.rmtree(top)
