"""`expertmesh agent` on a scripted model behind the real gateway: output, exit codes, the past."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from expertmesh.commands.agent import run as agent_run
from protos import attention_pb2
from tests.support.expertmesh.agent_scripts import Scripts
from tests.support.expertmesh.command import run_command
from tests.support.expertmesh.plain_sandbox import PlainSandbox
from tests.support.gateway.answers import invoke
from tests.support.gateway.fake_attention import in_turn
from tests.support.gateway.harness import Harness

Run = Callable[..., subprocess.CompletedProcess]


@pytest.fixture
def run(gateway: Harness, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command with this server, folder and state, between pipes."""

    def choose(folder: Path, mode: str, protected: Sequence[Path] = ()) -> PlainSandbox:
        assert list(protected) == [tmp_path / "state" / "expertmesh" / "agent"]
        return PlainSandbox(folder)

    monkeypatch.setattr(agent_run, "choose_sandbox", choose)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def run(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess:
        if arguments[0] not in ("show", "undo"):
            arguments = (*arguments, "--base-url", gateway.base_url, "--dir", str(work))
        return run_command("agent", *arguments, stdin=stdin, **environment)

    return run


def change(path: str, content: str) -> str:
    return invoke("file_editor", action="write", file_path=path, content=content)


def test_the_answer_goes_to_standard_output_and_the_steps_to_standard_error(
    gateway: Harness, scripts: Scripts, run: Run
) -> None:
    gateway.script(
        in_turn(
            scripts.calls(invoke("python_executor", code="print(6 * 7)")),
            scripts.final("It is 42."),
        )
    )
    done = run("What is 6 * 7?", "--approve", "all")
    assert (done.returncode, done.stdout) == (0, "It is 42.\n")
    lines = done.stderr.splitlines()
    assert lines[0].startswith("▸ step 1: thought for ")
    assert lines[1:3] == ["  python_executor  print(6 * 7)", lines[2]]
    assert re.fullmatch(r"  ok \d+\.\d s: 42", lines[2])
    assert "2 steps, " in done.stderr
    assert "\x1b" not in done.stdout + done.stderr


def test_a_task_from_a_pipe_and_json(gateway: Harness, scripts: Scripts, run: Run) -> None:
    gateway.script(
        in_turn(
            scripts.calls(change("a.txt", "x\n")),
            scripts.final("made [1]"),
        )
    )
    done = run("--approve", "edits", "--json", "--check", "ls a.txt", stdin="Make a.txt\n")
    told = json.loads(done.stdout)
    assert (done.returncode, told["ending"], told["answer"]) == (0, "done", "made [1]")
    assert told["check"] == {"command": "ls a.txt", "passed": True, "output": "exit code 0\na.txt"}
    assert told["changes"] == [{"path": "a.txt", "what": "added", "added": 1, "removed": 0}]
    assert (told["steps"], told["calls"]) == (2, ["file_editor"])
    assert told["completion_tokens"] > 20
    assert Path(told["trace"]).exists()


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("check", 5, "check failed: `false` failed 3 times"),
        ("steps", 4, "out of steps: no answer after 2 steps"),
        ("refused", 6, "not allowed: shell needs approval (it runs a program)"),
        ("repeated", 1, "failed: the same call of shell for the third time"),
    ],
)
def test_exit_codes_say_what_happened(
    gateway: Harness, scripts: Scripts, run: Run, name: str, code: int, words: str
) -> None:
    turn = (
        scripts.final("done") if name == "check" else scripts.calls(invoke("shell", command="ls"))
    )
    gateway.script(lambda request: turn(request))
    arguments = {
        "check": ("--check", "false"),
        "steps": ("--max-steps", "2", "--approve", "all"),
        "refused": (),
        "repeated": ("--approve", "all"),
    }[name]
    done = run("do it", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("x", "--dir", "/no/such"), 2, "--dir: /no/such is no folder"),
        (("x", "--sandbox", "none"), 2, "--sandbox: workspace, read-only or off, got 'none'"),
        (("x", "--sandbox", "off"), 2, "add --i-know"),
        (("x", "--tools", "shell,rm"), 2, "tools: there is no rm; there are python_executor"),
        (("x", "y"), 2, "the task is one argument; put it in quotes"),
        (("--json",), 2, "there is no task"),
        (("--resume", "none"), 2, "no run is kept in"),
        (("x", "--resume", "a", "--replay", "b"), 2, "give one of them"),
        (("show",), 2, "no run is kept in"),
        (("undo", "x"), 2, "no run is kept in"),
        (("x", "--base-url", "127.0.0.1:9"), 3, "cannot reach http://127.0.0.1:9"),
    ],
)
def test_what_cannot_begin_says_why(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    code: int,
    words: str,
) -> None:
    monkeypatch.setattr(agent_run, "choose_sandbox", lambda *_, **__: PlainSandbox(tmp_path))
    base = (
        ()
        if "--base-url" in arguments or arguments[0] in ("show", "undo")
        else ("--base-url", "http://127.0.0.1:9")
    )
    done = run_command("agent", *arguments, *base, XDG_STATE_HOME=str(tmp_path))
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert words in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130)])
def test_ctrl_c_ends_the_run_in_order(
    gateway: Harness, scripts: Scripts, run: Run, work: Path, number: int, code: int
) -> None:
    def interrupted(request: attention_pb2.GenerateRequest) -> Any:
        os.kill(os.getpid(), number)
        return [30.0]

    gateway.script(in_turn(scripts.calls(change("a.txt", "x")), interrupted))
    done = run("do it", "--approve", "all")
    assert (done.returncode, done.stdout) == (code, "")
    assert "interrupted\nadded a.txt (+1 -0)" in done.stderr
    assert "go on with it: expertmesh agent --resume 2" in done.stderr
    gateway.wait_for(lambda: gateway.fake.running == 0)


def test_undo_puts_the_folder_back(
    gateway: Harness, scripts: Scripts, run: Run, work: Path
) -> None:
    (work / "kept.txt").write_bytes(b"before\r\n\xff")
    command = "rm kept.txt; echo new > new.txt"
    gateway.script(in_turn(scripts.calls(invoke("shell", command=command)), scripts.final("ok")))
    assert "undo: expertmesh agent undo 2" in run("do it", "--approve", "all").stderr
    assert sorted(os.listdir(work)) == ["new.txt"]
    done = run("undo")
    assert (done.returncode, sorted(done.stdout.splitlines())) == (
        0,
        ["put back kept.txt", "put back new.txt"],
    )
    assert os.listdir(work) == ["kept.txt"]
    assert (work / "kept.txt").read_bytes() == b"before\r\n\xff"
    assert "left nothing to put back" in run("undo").stderr
    assert "put back: kept.txt, new.txt" in run("show").stdout


def test_undo_names_what_was_changed_since(
    gateway: Harness, scripts: Scripts, run: Run, work: Path
) -> None:
    gateway.script(in_turn(scripts.calls(change("a.txt", "agent")), scripts.final("ok")))
    run("do it", "--approve", "all")
    (work / "a.txt").write_text("user")
    done = run("undo")
    assert done.returncode == 1
    assert "changed since run 2" in done.stderr
    assert (work / "a.txt").read_text() == "user"
    assert run("undo", "--force", "--json").returncode == 0
    assert os.listdir(work) == []


def test_show_prints_the_run(gateway: Harness, scripts: Scripts, run: Run) -> None:
    gateway.script(in_turn(scripts.calls(invoke("shell", command="echo hi")), scripts.final("ok")))
    run("do it", "--approve", "all", "--check", "true")
    shown = run("show").stdout
    for words in (
        "model: tiny-m2",
        "sandbox: none",
        "user:\n    do it",
        "    | call",
        '    -> shell {"command": "echo hi"}',
        "  shell: ok, 0.",
        "    hi",
        "check `true` passed:",
        "done (2 steps, ",
    ):
        assert words in shown
    events = json.loads(run("show", "--json").stdout)
    assert [one["event"] for one in events][:3] == ["start", "system", "user"]


def test_a_run_is_gone_on_with(gateway: Harness, scripts: Scripts, run: Run, work: Path) -> None:
    gateway.script(
        in_turn(
            scripts.calls(invoke("shell", command="seq 100; echo from the first run > a.txt")),
            scripts.calls(invoke("file_editor", action="read", file_path="a.txt")),
        )
    )
    first = run("first task", "--approve", "all", "--max-steps", "2", "--json")
    assert first.returncode == 4
    gateway.script(
        in_turn(scripts.calls(invoke("shell", command="echo x")), scripts.final("ok [1]"))
    )
    done = run("--resume", json.loads(first.stdout)["id"], "--approve", "all", "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["steps"], told["cited"]) == (0, 2, [1])
    assert [one["place"] for one in told["sources"]][1] == "a.txt:1-2"
    prompt = scripts.tokenizer.decode(list(gateway.fake.requests[2].prompt_token_ids))
    assert "first task" in prompt
    assert "from the first run" in prompt
    assert "Go on with the task." in prompt
    outputs = Path(told["trace"]).parent / "outputs"
    assert sorted(os.listdir(outputs)) == ["1.txt", "2.txt", "3.txt"]
    gateway.script(in_turn(scripts.final("again")))
    assert run("and now this", "--resume", told["id"]).stdout == "again\n"
    prompt = scripts.tokenizer.decode(list(gateway.fake.requests[4].prompt_token_ids))
    assert "from the first run" in prompt
    assert "and now this" in prompt


def test_a_replay_makes_the_calls_again_and_names_what_differs(
    gateway: Harness, scripts: Scripts, run: Run, work: Path
) -> None:
    (work / "a.txt").write_text("1")
    gateway.script(
        in_turn(
            scripts.calls(invoke("shell", command="cat a.txt; touch b.txt")),
            scripts.calls(invoke("shell", command="echo same")),
            scripts.final("ok"),
        )
    )
    first = json.loads(run("do it", "--approve", "all", "--json").stdout)
    run("undo")
    gateway.script(lambda request: pytest.fail("a replay asks no model"))
    again = run("--replay", first["id"], "--approve", "all")
    assert (again.returncode, again.stdout) == (0, "ok\n")
    assert "differs" not in again.stderr
    assert (work / "b.txt").exists()
    (work / "a.txt").write_text("2")
    again = run("--replay", first["trace"], "--approve", "all")
    assert "step 1: the result of shell differs\n" in again.stderr
    assert "step 2" not in again.stderr.partition("differs")[2]


def test_the_key_is_presented_and_kept_out_of_the_trace(
    gateway: Harness, scripts: Scripts, run: Run
) -> None:
    key = "sk-0123-a-long-client-key"
    gateway.script(
        in_turn(scripts.calls(invoke("shell", command=f"echo {key}")), scripts.final("ok"))
    )
    done = run("do it", "--approve", "all", "--json", EXPERTMESH_API_KEY=key)
    trace = Path(json.loads(done.stdout)["trace"])
    assert key not in trace.read_text()
    assert "[masked]" in trace.read_text()
