"""A failing test is repaired and put back: scripted model, real gateway, real sandbox."""

import gc
import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from expertmesh.agent.sandbox.folders.identity import give_away
from tests.support.expertmesh.agent_scripts import Scripts
from tests.support.expertmesh.command import run_command
from tests.support.expertmesh.sandbox.working import work_folder
from tests.support.gateway.answers import invoke
from tests.support.gateway.fake_attention import in_turn
from tests.support.gateway.harness import Harness

CHECK = "python3 -m unittest -q"
WRONG, RIGHT = "return sum(xs) / len(xs) - 1", "return sum(xs) / len(xs)"
TEST = """\
import unittest
from mean import mean

class MeanTest(unittest.TestCase):
    def test_mean(self):
        self.assertEqual(mean([1, 2, 3]), 2)
"""


@pytest.fixture
def project() -> Iterator[Path]:
    with work_folder() as folder:
        (folder / "mean.py").write_text(f"def mean(xs):\n    {WRONG}\n")
        (folder / "test_mean.py").write_text(TEST)
        give_away(*folder.iterdir())
        yield folder


def picture(folder: Path) -> dict[str, tuple[bytes, int, int]]:
    return {
        str(path.relative_to(folder)): (
            path.read_bytes() if path.is_file() else b"",
            stat.S_IMODE(path.stat().st_mode),
            path.stat().st_mtime_ns if path.is_file() else 0,
        )
        for path in folder.rglob("*")
    }


def test_a_failing_test_is_repaired_checked_and_undone(
    gateway: Harness, scripts: Scripts, project: Path, tmp_path: Path
) -> None:
    before = picture(project)
    edit = {"action": "edit", "file_path": "mean.py", "old_text": WRONG}
    gateway.script(
        in_turn(
            scripts.calls(invoke("shell", command=CHECK)),
            scripts.final("It cannot be repaired."),  # the check says otherwise
            scripts.calls(invoke("file_editor", action="view", file_path="mean.py")),
            scripts.calls(invoke("file_editor", **edit, new_text=RIGHT + ")")),
            scripts.calls(
                invoke("file_editor", **{**edit, "old_text": RIGHT + ")"}, new_text=RIGHT)
            ),
            scripts.calls(invoke("shell", command=CHECK)),
            scripts.final("Repaired [1]."),
        )
    )
    environment = {"XDG_STATE_HOME": str(tmp_path)}
    done = run_command(
        *("agent", "Fix the failing test", "--dir", str(project), "--check", CHECK),
        *("--base-url", gateway.base_url, "--approve", "all", "--json"),
        **environment,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["check"]["passed"]
    assert {"path": "mean.py", "what": "changed", "added": 1, "removed": 1} in told["changes"]
    trace = Path(told["trace"]).read_text()
    assert "AssertionError: 1.0 != 2" in trace
    assert "The file is not valid now: line 2: unmatched ')'" in trace
    assert RIGHT in (project / "mean.py").read_text()
    assert WRONG not in (project / "mean.py").read_text()
    assert picture(project) != before
    undone = run_command("agent", "undo", **environment)
    assert undone.returncode == 0, undone.stderr
    gc.collect()  # a sandbox goes with what it put up to protect a `.git` that is not there
    assert picture(project) == before
