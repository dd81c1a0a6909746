"""`dev debug` and `dev refactor` on a scripted model behind the real gateway."""

import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from expertmesh.agent.record.run_folder import find_run
from expertmesh.agent.record.trace import read_trace
from expertmesh.commands.dev import folder as dev_folder
from tests.support.expertmesh.agent_scripts import Scripts
from tests.support.expertmesh.command import run_command
from tests.support.expertmesh.plain_sandbox import PlainSandbox
from tests.support.gateway.answers import invoke
from tests.support.gateway.fake_attention import in_turn
from tests.support.gateway.harness import Harness

CHECK = "grep -q right a.txt"
Run = Callable[..., subprocess.CompletedProcess]


@pytest.fixture
def run(gateway: Harness, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A command with this server, folder and state, between pipes."""

    def choose(folder: Path, mode: str, protected: Sequence[Path] = ()) -> PlainSandbox:
        assert list(protected) == [tmp_path / "state" / "expertmesh" / "agent"]
        return PlainSandbox(folder)

    monkeypatch.setattr(dev_folder, "choose_sandbox", choose)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (work / "a.txt").write_text("wrong\n")

    def run(name: str, *arguments: str) -> subprocess.CompletedProcess:
        server = ("--base-url", gateway.base_url, "--dir", str(work))
        return run_command("dev", name, *server, *arguments)

    return run


def change(content: str, path: str = "a.txt") -> str:
    return invoke("file_editor", action="write", file_path=path, content=content)


def asked(tmp_path: Path) -> list[str]:
    """The user's messages of the latest run."""
    run = find_run(tmp_path / "state" / "expertmesh" / "agent" / "runs")
    events = read_trace(run.trace)
    return [one["message"]["content"] for one in events if one["event"] == "user"]


def test_a_fault_is_mended_told_as_a_diff_and_undone(
    gateway: Harness, scripts: Scripts, run: Run, work: Path, tmp_path: Path
) -> None:
    gateway.script(
        in_turn(
            scripts.calls(change("nearly\n")),
            scripts.final("Mended."),
            scripts.calls(change("right\n")),
            scripts.final("Now it is."),
        )
    )
    done = run("debug", "--approve", "edits", "--", "grep", "-q", "right", "a.txt")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "--- a/a.txt\n+++ b/a.txt\n@@ -1 +1 @@\n-wrong\n+right\n"
    assert "Now it is.\nchanged a.txt (+1 -1)\n`grep -q right a.txt` passes\n" in done.stderr
    first, second = asked(tmp_path)
    assert first.startswith("`grep -q right a.txt` fails.")
    assert "exit code 1" in first
    assert "was run to check it and failed" in second
    assert run_command("agent", "undo").returncode == 0
    assert (work / "a.txt").read_text() == "wrong\n"


def test_a_command_that_succeeds_needs_no_server(run: Run, work: Path) -> None:
    (work / "a.txt").write_text("right\n")
    done = run("debug", "--base-url", "http://127.0.0.1:9", "--json", "--", CHECK)
    assert done.returncode == 0
    assert json.loads(done.stdout)["ending"] == "done"
    assert f"nothing to debug: `{CHECK}` succeeds" in done.stderr


def test_the_model_sees_the_code_that_the_output_names(
    gateway: Harness, scripts: Scripts, run: Run, work: Path, tmp_path: Path
) -> None:
    (work / "b.py").write_text("# 计算\nx = 1\nraise ValueError(x)\n")
    gateway.script(lambda request: scripts.final("I give up.")(request))
    done = run("debug", "--rounds", "1", "--hint", "上周还能用。", "--", "python3", "b.py")
    assert done.returncode == 5
    assert "check failed: `python3 b.py` failed once" in done.stderr
    (told,) = asked(tmp_path)
    assert "     3\traise ValueError(x)" in told
    assert "上周还能用。" in told
    assert told.startswith("命令`python3 b.py`运行失败。")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("debug", "--", " "), 2, "there is no command"),
        (("debug",), 2, "Missing argument"),
        (("debug", "--dir", "/no/such", "--", "x"), 2, "--dir: /no/such is no folder"),
        (("debug", "--sandbox", "off", "--", "x"), 2, "add --i-know"),
        (("debug", "--sandbox", "none", "--", "x"), 2, "workspace or off, got 'none'"),
        (("refactor", " "), 2, "there is no task"),
        (("debug", "--base-url", "http://127.0.0.1:9", "--", "false"), 3, "cannot reach"),
    ],
)
def test_an_expected_fault_is_one_line(
    run: Run, arguments: tuple[str, ...], code: int, words: str
) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("approve", "code"), [("ask", 6), ("edits", 0)])
def test_without_a_terminal_edits_need_to_be_allowed(
    gateway: Harness, scripts: Scripts, run: Run, work: Path, approve: str, code: int
) -> None:
    gateway.script(in_turn(scripts.calls(change("right\n")), scripts.final("Mended.")))
    done = run("debug", "--approve", approve, "--", CHECK)
    assert done.returncode == code
    assert ((work / "a.txt").read_text() == "right\n") == (code == 0)


def refactoring(scripts: Scripts) -> Callable[..., object]:
    return in_turn(
        scripts.calls(change("wrong, renamed\n"), change("new\n", "sub b.txt")),
        scripts.final("Renamed."),
        scripts.final("It cannot be done."),
    )


def test_a_refactoring_is_kept_if_the_check_passes_before_and_after(
    gateway: Harness, scripts: Scripts, run: Run, work: Path, tmp_path: Path
) -> None:
    gateway.script(refactoring(scripts))
    done = run("refactor", "Rename it", "--approve", "all", "--check", "grep -q wrong a.txt")
    assert done.returncode == 0, done.stderr
    assert "+wrong, renamed" in done.stdout
    assert "+++ b/sub b.txt" in done.stdout
    assert (work / "sub b.txt").read_text() == "new\n"
    assert "`grep -q wrong a.txt` succeeds now" in asked(tmp_path)[0]


def test_a_refactoring_that_breaks_the_check_is_undone_as_a_whole(
    gateway: Harness, scripts: Scripts, run: Run, work: Path
) -> None:
    gateway.script(refactoring(scripts))
    before = {one.name: one.read_text() for one in work.iterdir()}
    asked_ = ("refactor", "Rename it", "--approve", "all", "--rounds", "2", "--json")
    done = run(*asked_, "--check", "grep -qx wrong a.txt")
    assert done.returncode == 5, done.stderr
    told = json.loads(done.stdout)
    assert sorted(told["undone"]["restored"]) == ["a.txt", "sub b.txt"]
    assert (told["ending"], told["diff"]) == ("check failed", "")
    assert {one.name: one.read_text() for one in work.iterdir()} == before
    assert "the folder was put back as it was before" in done.stderr


def test_keep_keeps_what_breaks_the_check(
    gateway: Harness, scripts: Scripts, run: Run, work: Path
) -> None:
    gateway.script(refactoring(scripts))
    asked_ = ("refactor", "Rename it", "--approve", "all", "--rounds", "1", "--keep")
    done = run(*asked_, "--check", "grep -qx wrong a.txt")
    assert done.returncode == 5
    assert (work / "a.txt").read_text() == "wrong, renamed\n"
    assert "+wrong, renamed" in done.stdout
    assert "undo: expertmesh agent undo" in done.stderr


def test_a_check_that_fails_before_is_told_and_nothing_is_asked(run: Run, work: Path) -> None:
    done = run("refactor", "Rename it", "--check", CHECK, "--base-url", "http://127.0.0.1:9")
    assert (done.returncode, done.stdout) == (5, "")
    assert "fails before anything was changed" in done.stderr.splitlines()[-1]


def test_without_a_check_the_user_is_told_so(
    gateway: Harness, scripts: Scripts, run: Run, work: Path
) -> None:
    gateway.script(refactoring(scripts))
    done = run("refactor", "Rename it", "--approve", "all")
    assert done.returncode == 0
    assert "without --check nothing says whether it still works" in done.stderr


def test_a_refactoring_that_changes_nothing_has_failed(
    gateway: Harness, scripts: Scripts, run: Run, work: Path
) -> None:
    gateway.script(lambda request: scripts.final("All renamed.")(request))
    done = run("refactor", "Rename it", "--check", "true")
    assert (done.returncode, done.stdout) == (1, "")
    assert "nothing was changed" in done.stderr
