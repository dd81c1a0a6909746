"""`expertmesh dev review` as a user and a workflow of CI run it, against a scripted server."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.expertmesh.command import run_command
from tests.support.expertmesh.fake_openai_server import FakeServer, Script
from tests.support.expertmesh.scripted_text import refuses, says, texts
from tests.support.places import ROOT

FOUND = [
    {"line": 2, "kind": "off_by_one", "severity": "error", "message": "one too far"},
    {"line": 9, "kind": "name", "severity": "note", "message": "nowhere"},
]
Serve = Callable[[Script], FakeServer]


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = Path("a.py")
    path.write_text("def last(xs):\n    return xs[len(xs)]\n")
    return path


def git(*arguments: str) -> None:
    settings = ("-c", "user.name=n", "-c", "user.email=e@example.org")
    subprocess.run(["git", *settings, *arguments], check=True, capture_output=True)


def test_findings_go_to_standard_output_and_the_rest_to_standard_error(
    serve: Serve, code: Path
) -> None:
    server = serve(says(json.dumps(FOUND), thinking="hm"))
    done = run_command("dev", "review", "a.py", "--base-url", server.url, "--temperature", "0")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "a.py:2: error: off_by_one: one too far\n    return xs[len(xs)]\n"
    assert "reviewing a.py:1-2" in done.stderr
    assert "1 finding names a line that the code shown does not have" in done.stderr
    assert "1 error in 2 lines of 1 file" in done.stderr
    assert server.bodies[0]["temperature"] == 0


@pytest.mark.parametrize(("severity", "code_"), [("error", 5), ("note", 5)])
def test_fail_on_decides_the_exit_code(serve: Serve, code: Path, severity: str, code_: int) -> None:
    asked = ("dev", "review", "a.py", "--fail-on", severity, "--base-url")
    assert run_command(*asked, serve(says(json.dumps(FOUND))).url).returncode == code_
    assert run_command(*asked, serve(says("[]")).url).returncode == 0


def test_json_and_annotations_are_for_scripts(serve: Serve, code: Path) -> None:
    server = serve(says(json.dumps(FOUND)))
    told = json.loads(
        run_command("dev", "review", "a.py", "--json", "--base-url", server.url).stdout
    )
    assert [one["line"] for one in told["findings"]] == [2]
    assert told["dropped"] == 1
    done = run_command("dev", "review", "a.py", "--github", "--base-url", server.url)
    assert done.stdout == "::error file=a.py,line=2,title=off_by_one::one too far\n"


def test_a_change_is_reviewed_as_git_tells_it(serve: Serve, code: Path) -> None:
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    server = serve(says(json.dumps(FOUND)))
    asked = ("dev", "review", "--diff", "--base-url", server.url)
    done = run_command(*asked)
    assert (done.returncode, done.stdout, server.bodies) == (0, "", [])
    assert "no line was added" in done.stderr
    code.write_text("def last(xs):\n    return xs[-1]\n")
    done = run_command(*asked)
    assert done.stdout == "a.py:2: error: off_by_one: one too far\n    return xs[-1]\n"
    assert "     2 +\t    return xs[-1]" in texts(server.bodies[0]["messages"])
    done = run_command(*asked, "nowhere")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "nowhere" in done.stderr


def test_git_starts_no_program_that_the_repository_names(serve: Serve, code: Path) -> None:
    git("init", "-q")
    Path(".gitattributes").write_text("*.py diff=evil\n")
    git("add", ".")
    git("commit", "-qm", "first")
    for name in ("diff.evil.textconv", "diff.evil.command", "diff.external", "core.fsmonitor"):
        git("config", name, "touch started;")
    code.write_text("x = 1\n")
    server = serve(says("[]"))
    done = run_command("dev", "review", "--diff", "--base-url", server.url)
    assert done.returncode == 0, done.stderr
    assert len(server.bodies) == 1
    assert not Path("started").exists()


def test_settings_of_a_user_for_diffs_change_nothing(
    serve: Serve, code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git("init", "-q")
    Path("folder").mkdir()
    code.rename("folder/你.js")
    git("add", ".")
    git("commit", "-qm", "first")
    for setting in ("noprefix", "mnemonicPrefix", "relative", "suppressBlankEmpty"):
        git("config", f"diff.{setting}", "true")
    git("config", "color.ui", "always")
    Path("folder/你.js").write_text("def last(xs):\n\n    return xs[-1]\n")
    monkeypatch.chdir("folder")
    server = serve(says(json.dumps(FOUND)))
    done = run_command("dev", "review", "--diff", "--base-url", server.url)
    assert done.stdout.startswith("folder/你.js:2: error: off_by_one"), done.stderr


def test_a_diff_comes_from_a_pipe(serve: Serve, code: Path) -> None:
    diff = "--- a/z.js\n+++ b/z.js\n@@ -1 +1,2 @@\n one\n+two\n"
    server = serve(says(json.dumps(FOUND)))
    done = run_command("dev", "review", "--diff", "-", "--base-url", server.url, stdin=diff)
    assert done.stdout == "z.js:2: error: off_by_one: one too far\n    two\n"


@pytest.mark.parametrize(
    ("arguments", "code_", "says_"),
    [
        (("absent.py",), 2, "absent.py: No such file or directory"),
        ((), 2, "give a file, or --diff"),
        (("--diff", "a", "b"), 2, "--diff takes one revision"),
        (("--diff", "--", "--output=x"), 2, "is no revision"),
        (("a.py", "--json", "--github"), 2, "give one of them"),
        (("a.py", "--base-url", "http://127.0.0.1:9"), 3, "does `expertmesh status` show"),
        (("a.py", "--base-url", "http://[::"), 2, "base_url"),
    ],
)
def test_an_expected_fault_is_one_line(
    code: Path, arguments: tuple[str, ...], code_: int, says_: str
) -> None:
    done = run_command("dev", "review", *arguments)
    assert (done.returncode, done.stdout) == (code_, "")
    assert says_ in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_what_the_server_or_the_model_cannot_do_is_one_line(serve: Serve, code: Path) -> None:
    done = run_command("dev", "review", "a.py", "--base-url", serve(refuses(401)).url)
    assert (done.returncode, done.stderr.splitlines()[-1][:12]) == (1, "expertmesh: ")
    assert "401: refused" in done.stderr
    done = run_command("dev", "review", "a.py", "--base-url", serve(says("I cannot.")).url)
    assert done.returncode == 1
    assert "not of the form that it was asked for, twice" in done.stderr.splitlines()[-1]


def test_a_file_that_is_no_text_is_told_before_anything_is_asked(code: Path) -> None:
    code.write_bytes(b"\xff\xff")
    done = run_command("dev", "review", "a.py", "--base-url", "http://127.0.0.1:9")
    assert (done.returncode, "not UTF-8" in done.stderr) == (2, True)


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_review_is_one_line(serve: Serve, code: Path, sent: int) -> None:
    server = serve(lambda body: [{"choices": [{"delta": {"content": "["}}]}, 60.0])
    command = [sys.executable, "-m", "expertmesh", "dev", "review", "a.py", "--base-url"]
    process = subprocess.Popen(
        [*command, server.url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        for _ in range(300):
            if server.open:
                break
            time.sleep(0.1)
        process.send_signal(sent)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "interrupted"
    assert "Traceback" not in err
