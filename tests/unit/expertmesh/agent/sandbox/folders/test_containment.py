"""Paths are inside a folder exactly if the kernel finds them there."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expertmesh.agent.sandbox.folders.containment import folder_within, is_within, is_writable
from tests.support.examples import examples

NAMES = st.sampled_from(["a", "b", ".git", "..", ".", "a ", "ä", "a\u0308", "-", "link", "x\n"])
PATHS = st.lists(NAMES, max_size=5).map("/".join)


@given(PATHS, PATHS, st.lists(st.tuples(PATHS, PATHS), max_size=4))
@examples(200)
def test_a_folder_is_taken_only_if_it_really_is_inside(
    asked: str, made: str, links: list[tuple[str, str]]
) -> None:
    with tempfile.TemporaryDirectory() as place:
        top = Path(place).resolve()
        work = top / "work"
        work.mkdir()
        (top / "a").mkdir()
        inside = Path(os.path.normpath(work / made))
        if is_within(inside, top):
            inside.mkdir(parents=True, exist_ok=True)
        for name, target in links:
            link = Path(os.path.normpath(work / name))
            if is_within(link, work) and link.parent.is_dir() and not os.path.lexists(link):
                link.symlink_to(target or ".")
        real = os.path.realpath(work / asked)
        is_inside = os.path.commonpath([real, work]) == str(work)
        if os.path.isdir(real) and is_inside and (work / asked).exists():
            assert folder_within(work, asked) == Path(real)
        else:
            with pytest.raises(ValueError, match="folder"):
                folder_within(work, asked)


@pytest.mark.parametrize("folder", ["/", "/etc", "..", "a/../..", "link", "\0", "x" * 5000, "ring"])
def test_a_folder_outside_or_none_is_refused(tmp_path: Path, folder: str) -> None:
    work = tmp_path / "work"
    (work / "a").mkdir(parents=True)
    (work / "link").symlink_to("/etc")
    (work / "ring").symlink_to("ring")
    with pytest.raises(ValueError, match="folder"):
        folder_within(work, folder)


PARTS = st.lists(st.sampled_from(["work", "a", ".git", "b", "state"]), min_size=1, max_size=5)
ABSOLUTE = PARTS.map(lambda parts: Path("/", *parts))


@given(ABSOLUTE, ABSOLUTE, st.lists(ABSOLUTE, max_size=3))
@examples(200)
def test_nothing_protected_can_be_reached_by_writing_moving_or_replacing(
    path: Path, root: Path, protected: list[Path]
) -> None:
    if is_writable(path, [root], protected):
        assert str(path).startswith(f"{root}/")
        for one in protected:
            # Neither is it in there, nor would it take it along.
            assert f"{path}/".startswith(f"{one}/") is False
            assert f"{one}/".startswith(f"{path}/") is False
    elif path != root and root in path.parents:
        assert any(is_within(path, one) or is_within(one, path) for one in protected)


@pytest.mark.parametrize("name", [".GIT", ".Git", ".git"])
def test_case_does_not_matter_for_what_is_protected(name: str) -> None:
    work = Path("/work")
    assert not is_writable(work / name / "config", [work], [work / ".git"])
    assert is_writable(work / "x.GIT", [work], [work / ".git"])


def test_a_name_that_begins_alike_is_another_folder() -> None:
    assert not is_within(Path("/work-other/x"), Path("/work"))
    assert is_writable(Path("/work/.github/x"), [Path("/work")], [Path("/work/.git")])
