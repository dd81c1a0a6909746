"""The terminal chat against a stand-in server: pipes, JSON, errors, history."""

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from expertmesh.clients.chat import ChatClient, Piece, Reply, client_key, pieces_of
from expertmesh.clients.live_lines import shown
from expertmesh.clients.transcript import Thinking, show_reply
from expertmesh.console import CommandError
from tests.support.expertmesh.command import run_command
from tests.support.places import ROOT

HERE = ROOT / "tests" / "support" / "expertmesh"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = subprocess.Popen(
        [sys.executable, str(HERE / "fake_service.py"), "--kind", "http"],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stderr is not None
    line = server.stderr.readline()
    yield "http://" + line.strip().rpartition("http=")[2]
    server.terminate()
    server.wait(10)


def run(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess:
    return run_command("chat", *arguments, stdin=stdin, **environment)


def test_a_question_as_argument_puts_only_the_answer_on_stdout(url: str) -> None:
    done = run("hello", "--base-url", url)
    assert (done.returncode, done.stdout) == (0, "you said hello\n")
    assert "let me think" in done.stderr
    assert "4 tokens, " in done.stderr


def test_a_question_from_a_pipe_and_the_environment_twin(url: str) -> None:
    done = run("--thinking", "hidden", stdin="from a pipe\n", EXPERTMESH_BASE_URL=f"{url}/v1")
    assert (done.returncode, done.stdout) == (0, "you said from a pipe\n")
    assert "let me think" not in done.stderr


def test_without_an_address_the_running_cluster_is_asked(url: str, tmp_path: Path) -> None:
    me = psutil.Process()
    state = {"pid": me.pid, "started_at": me.create_time(), "phase": "ready", "url": url}
    folder = tmp_path / "expertmesh" / "cluster-8501"
    folder.mkdir(parents=True, mode=0o700)
    (folder / "cluster.json").write_text(json.dumps(state))
    done = run("hello", XDG_STATE_HOME=str(tmp_path))
    assert (done.returncode, done.stdout) == (0, "you said hello\n")
    done = run("hello", "--run-dir", str(folder))
    assert done.stdout == "you said hello\n"


def test_of_several_keys_in_the_environment_the_first_is_presented(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EXPERTMESH_API_KEY", "sk-first, sk-second")
    assert client_key("sk-first, sk-second") == "sk-first"
    assert client_key("sk,given") == "sk,given"
    assert client_key(None) is None


def test_json_has_answer_thinking_and_speed(url: str) -> None:
    done = run("hello", "--base-url", url, "--json")
    answer = json.loads(done.stdout)
    assert answer["content"] == "you said hello"
    assert answer["reasoning_content"] == "let me think"
    assert answer["finish_reason"] == "stop"
    assert answer["completion_tokens"] == 4
    assert answer["first_token_s"] <= answer["total_s"]


def test_no_server_is_exit_3_with_advice() -> None:
    done = run("hello", "--base-url", "http://127.0.0.1:9")
    assert done.returncode == 3
    assert done.stderr.startswith("expertmesh: cannot reach http://127.0.0.1:9")
    assert "Traceback" not in done.stderr


def test_a_server_error_is_its_message(url: str) -> None:
    done = run("fail", "--base-url", url)
    assert (done.returncode, done.stdout.strip()) == (3, "")
    assert "503: no pool" in done.stderr


def test_a_stream_that_breaks_off_is_not_an_answer(url: str) -> None:
    done = run("break", "--base-url", url)
    assert done.returncode == 1
    assert "ended before it was complete" in done.stderr


def test_an_empty_pipe_is_a_usage_error(url: str) -> None:
    assert run("--base-url", url, stdin="\n").returncode == 2


def test_streamed_tool_calls_are_put_together() -> None:
    reply = Reply()
    fragments = [
        {"index": 0, "id": "call_1", "function": {"name": "python_executor", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"code": '}},
        {"index": 0, "function": {"arguments": '"1+1"}'}},
        {"index": 1, "id": "call_2", "function": {"name": "other", "arguments": "{}"}},
    ]
    for fragment in fragments:
        list(pieces_of({"choices": [{"delta": {"tool_calls": [fragment]}}]}, reply))
    first, second = reply.tool_calls
    assert json.loads(first["function"]["arguments"]) == {"code": "1+1"}
    assert (first["id"], second["function"]["name"]) == ("call_1", "other")
    assert reply.as_message()["tool_calls"] == [first, second]


def test_history_keeps_thinking_for_the_next_turn(url: str) -> None:
    client = ChatClient(url)
    reply = Reply()
    body = {"model": "fake", "messages": [{"role": "user", "content": "hi"}]}
    kinds = [piece.kind for piece in client.stream(body, reply)]
    client.close()
    assert kinds == ["reasoning", "reasoning", "content", "content"]
    assert reply.as_message() == {
        "role": "assistant",
        "content": "you said hi",
        "reasoning_content": "let me think",
    }


def test_an_address_without_a_server_names_it() -> None:
    client = ChatClient("http://127.0.0.1:9")
    with pytest.raises(CommandError, match=r"127\.0\.0\.1:9"):
        client.model_name()


def test_a_model_cannot_steer_the_terminal() -> None:
    text = "a\x1b[2J\x07b\x9bc\nd\te\u4f60"
    terminal = Console(file=io.StringIO(), force_terminal=True)
    assert shown(text, terminal) == "a[2Jbc\nd\te\u4f60"
    assert shown(text, Console(file=io.StringIO())) == text


@pytest.mark.parametrize("terminal", [True, False])
def test_thinking_folds_on_a_terminal_and_is_full_in_a_pipe(terminal: bool) -> None:
    out, notes = io.StringIO(), io.StringIO()
    reply = Reply(reasoning="one\ntwo", content="done", finish_reason="stop", thinking_s=1.5)
    show_reply(
        [Piece("reasoning", "one\n"), Piece("reasoning", "two"), Piece("content", "done")],
        reply,
        out=Console(file=out, width=80),
        notes=Console(file=notes, width=80, force_terminal=terminal, highlight=False),
        thinking=Thinking.FOLDED,
    )
    assert out.getvalue() == "done\n"
    last = notes.getvalue().strip().splitlines()[-1]
    assert ("thought for 1.5 s" in last) is terminal
    assert terminal or notes.getvalue() == "thinking: one\ntwo\n\n"
