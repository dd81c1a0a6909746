"""`expertmesh dev tests` with a scripted server: what is kept, what is told, what stays."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from expertmesh.agent.sandbox.policy import SandboxUnavailableError
from expertmesh.assistants.testing.workshop import Workshop
from expertmesh.commands.dev import tests as dev_tests
from tests.support.expertmesh import quick_pytest
from tests.support.expertmesh.command import run_command
from tests.support.expertmesh.fake_openai_server import FakeServer, Script
from tests.support.expertmesh.plain_sandbox import PlainSandbox
from tests.support.expertmesh.scripted_text import in_turn, says, texts

CODE = """\
def largest(xs):
    best = xs[0]
    for x in xs:
        if x > best:
            best = x
    return best
"""
NAME = "test_m.py"
GOOD = "from m import largest\n\n\ndef test_it():\n    assert largest([1, 3, 2]) == 3\n"
WRONG = GOOD + "\n\ndef test_no():\n    assert largest([1]) == 2\n"
IDLE = "import m\n\n\ndef test_it():\n    assert m\n"
Serve = Callable[[Script], FakeServer]


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in which tests run quickly, and in no sandbox."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dev_tests, "Workshop", partial(Workshop, make_sandbox=PlainSandbox))
    quick_pytest.put_into(tmp_path)
    programs = (str(Path(sys.executable).parent), os.environ["PATH"])  # python3 may be a script
    monkeypatch.setenv("PATH", os.pathsep.join(programs))
    Path("pyproject.toml").write_text('[tool.pytest.ini_options]\naddopts = "--nonsense"\n')
    path = Path("m.py")
    path.write_text(CODE)
    return path


@pytest.fixture
def with_pytest(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sandbox of this machine, for whose Python pytest lies in the project, wherever it is
    installed."""
    monkeypatch.setattr(dev_tests, "Workshop", Workshop)
    shutil.rmtree("pytest")
    try:
        Workshop().close()
    except SandboxUnavailableError as error:
        pytest.skip(str(error))
    for name in ("pytest", "_pytest", "pluggy", "iniconfig", "packaging", "pygments"):
        found = importlib.util.find_spec(name)
        assert found is not None
        assert found.origin is not None
        shutil.copytree(Path(found.origin).parent, name, ignore=lambda *_: {"__pycache__"})
    shutil.copyfile(Path(pytest.__file__).parent.with_name("py.py"), "py.py")


def block(text: str) -> Script:
    return says(f"Here they are:\n```python\n{text}```\nDone.")


def asked(server: FakeServer, *besides: str, mutants: int = 2) -> subprocess.CompletedProcess:
    limit = ("--mutants", str(mutants))
    return run_command("dev", "tests", "m.py", "--base-url", server.url, *limit, *besides)


def test_tests_that_hold_are_saved_and_the_code_stays(serve: Serve, code: Path) -> None:
    server = serve(block(GOOD))
    done = asked(server, "--json", mutants=3)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["tests"], told["holds"]) == (["test_it"], True)
    assert told["mutants"] == told["noticed"] + len(told["missed"]) == 3
    assert Path(told["file"]).read_text() == GOOD
    assert code.read_text() == CODE
    assert {one.name for one in Path().iterdir()} == {"m.py", "pyproject.toml", "pytest", "tests"}
    assert "imported from m." in texts(server.bodies[0]["messages"])
    again = asked(server)
    assert (again.returncode, "--force" in again.stderr) == (2, True)
    assert len(server.bodies) == 1


def test_a_failure_goes_back_to_the_model(serve: Serve, code: Path) -> None:
    server = serve(in_turn(block(WRONG), block(GOOD)))
    done = asked(server)
    assert done.returncode == 0, done.stderr
    assert Path(f"tests/{NAME}").read_text() == GOOD
    assert "FAILED tests/test_m" in texts(server.bodies[1]["messages"])
    assert "of 2 mistakes made on purpose noticed" in done.stderr


def test_a_test_that_still_fails_is_left_out_and_told(serve: Serve, code: Path) -> None:
    done = asked(serve(block(WRONG)), "--out", "t.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "t.py\n"
    assert Path("t.py").read_text().strip() == GOOD.strip()
    assert "left out: test_no fails: AssertionError" in done.stderr


def test_tests_that_notice_nothing_are_not_saved(serve: Serve, code: Path) -> None:
    server = serve(block(IDLE))
    done = asked(server, mutants=1)
    assert (done.returncode, done.stdout) == (5, "")
    assert "not noticed: m.py, line " in done.stderr
    assert "not saved: the tests notice none" in done.stderr
    assert not Path("tests").exists()
    assert "still pass when the code is made wrong" in texts(server.bodies[1]["messages"])


@pytest.mark.slow
@pytest.mark.usefixtures("with_pytest")
def test_tests_run_in_the_sandbox(serve: Serve, code: Path) -> None:
    """What the model writes can touch nothing outside of it."""
    there = code.resolve().with_name("touched")
    attack = f"open({str(there)!r}, 'w')"
    text = f"{GOOD}    assert largest([-5, -3]) == -3\n\n\ndef test_first():\n"
    text += f"    assert largest([7]) == 7\n\n\ndef test_outside():\n    {attack}\n"
    done = asked(serve(block(text)), mutants=3)
    assert done.returncode == 0, done.stderr
    assert "2 tests pass; 3 of 3 mistakes made on purpose noticed" in done.stderr
    assert "left out: test_outside fails" in done.stderr
    assert not there.exists()


def test_a_python_without_pytest_is_one_line(
    serve: Serve, code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("python3").write_text("#!/bin/sh\necho 'No module named pytest' >&2\nexit 1\n")
    Path("python3").chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join((str(code.resolve().parent), os.environ["PATH"])))
    done = asked(serve(block(GOOD)))
    assert (done.returncode, done.stdout) == (1, "")
    assert "pytest is missing where tests are run" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("answer", "says_"),
    [("I cannot.", "this is no Python"), ("```python\nx = 1\n```", "begins with test_")],
)
def test_an_answer_without_tests_is_one_line(
    serve: Serve, code: Path, answer: str, says_: str
) -> None:
    server = serve(says(answer))
    done = asked(server)
    assert (done.returncode, done.stdout, len(server.bodies)) == (1, "", 3)
    assert says_ in done.stderr.splitlines()[-1]


def test_tests_that_never_pass_are_one_line(serve: Serve, code: Path) -> None:
    done = asked(serve(block("import absent\n\n\ndef test_it():\n    pass\n")))
    assert (done.returncode, done.stdout) == (1, "")
    assert "none of its tests passes on the code" in done.stderr.splitlines()[-1]
    assert "absent" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "says_"),
    [
        (("absent.py",), "absent.py: No such file"),
        (("m.py", "--function", "smallest"), "there is no smallest; there are largest"),
        (("broken.py",), "broken.py:1: this is no Python"),
        (("m.py", "--out", "tests.txt"), "no Python file"),
        (("m.py", "--root", "/usr"), "not below"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_asked(
    code: Path, arguments: tuple[str, ...], says_: str
) -> None:
    Path("broken.py").write_text("def f(:\n")
    done = run_command("dev", "tests", *arguments, "--base-url", "http://127.0.0.1:9")
    assert (done.returncode, done.stdout) == (2, "")
    assert says_ in done.stderr
