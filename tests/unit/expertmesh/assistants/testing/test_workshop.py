"""A copy of a project: its files and nothing else, in which Python runs."""

import os
from pathlib import Path

import pytest

from expertmesh.agent.sandbox.policy import Limits
from expertmesh.assistants.testing import workshop as module
from expertmesh.assistants.testing.workshop import Workshop
from tests.support.expertmesh.plain_sandbox import PlainSandbox

LIMITS = Limits(wall_s=10)


def names(folder: Path) -> set[str]:
    return {str(one.relative_to(folder)) for one in folder.rglob("*") if one.is_file()}


async def test_files_are_copied_and_vanish_and_the_project_stays(tmp_path: Path) -> None:
    for name in ("a.py", "p/b.txt", ".git/config", ".venv/x.txt", "p/__pycache__/b.pyc"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("VALUE = 1\n")
    (tmp_path / "link.py").symlink_to("/etc/hostname")
    with Workshop(tmp_path, make_sandbox=PlainSandbox) as copy:
        assert names(copy.path) == {"a.py", "p/b.txt"}
        copy.write("p/b.txt", "VALUE = 2\n")
        copy.write("new/c.txt", "")
        done = await copy.python(
            "-c",
            "print(open('p/b.txt').read(), __import__('sys').path[1])",
            imports="p",
            limits=LIMITS,
        )
        assert done.stdout.split() == ["VALUE", "=", "2", str(copy.path / "p")]
        assert "__pycache__" not in {one.name for one in copy.path.rglob("*")}
        if os.geteuid() == 0:
            assert {one.stat().st_uid for one in copy.path.rglob("*")} == {65534}
    assert not copy.path.exists()
    assert (tmp_path / "p/b.txt").read_text() == "VALUE = 1\n"
    assert not (tmp_path / "new").exists()


def test_a_folder_with_too_much_in_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_FILES", 3)
    for number in range(4):
        (tmp_path / f"{number}.py").touch()
    with pytest.raises(ValueError, match="give a smaller folder"):
        Workshop(tmp_path, make_sandbox=PlainSandbox)


def test_an_empty_one_vanishes_where_there_is_no_sandbox() -> None:
    made: list[Path] = []

    def fails(path: Path) -> PlainSandbox:
        made.append(path)
        raise RuntimeError("none")

    with pytest.raises(RuntimeError, match="none"):
        Workshop(make_sandbox=fails)
    assert not made[0].exists()
