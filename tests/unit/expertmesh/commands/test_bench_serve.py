"""`expertmesh bench serve` against a server whose times and counts are known."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from typer.testing import CliRunner

from expertmesh.cli import app
from expertmesh.console import CommandError
from expertmesh.loadgen.serve_bench import ServeOptions, WorkloadOptions
from tests.support.expertmesh.fake_openai_server import FakeServer, Script, tokens
from tests.support.places import ROOT


@pytest.fixture
def serve() -> Iterator[Callable[[Script], FakeServer]]:
    servers: list[FakeServer] = []

    def start(script: Script) -> FakeServer:
        servers.append(FakeServer(script))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def bench(url: str, *flags: str) -> Any:
    return CliRunner().invoke(app, ["bench", "serve", "--base-url", url, *flags])


def result_of(url: str, *flags: str) -> dict[str, Any]:
    done = bench(url, "--json", *flags)
    assert done.exit_code == 0, done.output
    (line,) = done.stdout.splitlines()
    return json.loads(line)


def test_times_and_counts_of_a_paced_server(serve):
    server = serve(tokens("a", "b", "c", pause_s=0.03, cached=3))
    flags = ("--num-prompts", "6", "--max-concurrency", "2", "--random-input-len", "5")
    result = result_of(server.url, *flags, "--random-output-len", "3", "--percentiles", "50,99")
    assert (result["completed"], result["failed"]) == (6, 0)
    assert (result["total_input_tokens"], result["total_output_tokens"]) == (42, 18)
    assert result["max_concurrent_requests"] == server.most_open == 2
    assert result["prefix_cache_hit_rate"] == pytest.approx(3 / 7)
    assert result["expert_rpc_share"] == pytest.approx(1 / 4)
    # Never faster than the server was told to be.
    assert min(result[f"{stat}_ttft_ms"] for stat in ("mean", "p50")) >= 30
    assert result["mean_tpot_ms"] >= 30
    assert result["mean_e2el_ms"] >= 90
    assert result["duration"] >= 3 * 0.09
    assert result["request_rate"] == "inf"
    asked = server.bodies[-1]
    assert asked["max_tokens"] == 3
    assert len(asked["prompt"]) == 5
    assert set(asked["prompt"]) <= set(range(50, 150))
    assert asked["model"] == "fake"
    assert "ignore_eos" not in asked


def test_a_server_without_counts_is_counted_by_its_last_word(serve):
    def script(body: dict[str, Any]) -> list[Any]:
        options = body["stream_options"]
        if "continuous_usage_stats" in options or "expertmesh_timings" in body:
            return [400]
        return [
            {"choices": [{"delta": {"role": "assistant", "content": ""}}]},
            {"choices": [{"delta": {"content": "two tokens"}}]},
            {"choices": [{"delta": {}, "finish_reason": "stop"}]},
            {"choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": 2}},
            "[DONE]",
        ]

    result = result_of(serve(script).url, "--num-prompts", "2", "--endpoint", "chat")
    assert result["total_output_tokens"] == 4
    assert result["mean_itl_ms"] is None
    assert result["prefix_cache_hit_rate"] is None
    assert result["expert_rpc_share"] is None


def test_conversations_carry_their_answers(serve):
    server = serve(tokens("yes", " sir"))
    flags = ("--num-prompts", "1", "--turns", "3", "--ignore-eos", "--seed", "4")
    assert result_of(server.url, *flags)["completed"] == 3
    roles = [[m["role"] for m in body["messages"]] for body in server.bodies[-3:]]
    assert roles == [["user"] + ["assistant", "user"] * turn for turn in range(3)]
    assert server.bodies[-1]["messages"][1]["content"] == "yes sir"
    assert server.bodies[-1]["ignore_eos"] is True


def test_failures_are_counted_and_named(serve):
    good = tokens("a")
    server = serve(lambda body: good(body))
    turn = iter([good, good, lambda body: [503], lambda body: [{"error": {"message": "gone"}}]])
    server.script = lambda body: next(turn)(body)
    done = bench(server.url, "--num-prompts", "3", "--max-concurrency", "1")
    assert done.exit_code == 0
    assert re.search(r"Successful requests: +1\nFailed requests: +2\n", done.stdout)
    assert "HTTP 503" in done.stderr
    assert "gone" in done.stderr


@pytest.mark.parametrize(
    "flags, words",
    [
        (("--request-rate", "0"), "--request-rate"),
        (("--max-concurrency", "-1"), "--max-concurrency"),
        (("--percentiles", "101"), "--percentiles"),
        (("--goodput", "speed:1"), "--goodput"),
        (("--dataset", "/nowhere"), "--dataset"),
        (("--random-range-ratio", "1"), "--random-range-ratio"),
        (("--endpoint", "responses"), "--endpoint"),
        (("--base-url", "ftp://a"), "base_url"),
        (("--base-url", "http://127.0.0.1:1"), "127.0.0.1:1"),
        (("--plot", "/nowhere/run.png"), "--plot"),
    ],
)
def test_what_cannot_be_done_is_one_clear_line(serve, flags, words):
    done = bench(serve(tokens("a")).url, "--num-prompts", "1", *flags)
    assert isinstance(done.exception, CommandError)
    assert words in str(done.exception)
    assert done.exception.exit_code in (2, 3)


def test_ctrl_c_prints_what_there_is(serve):
    slow = tokens("a", "b", pause_s=0.01)
    stuck = tokens("a", pause_s=60.0)
    server = serve(slow)
    server.script = lambda body: (slow if len(server.bodies) < 4 else stuck)(body)
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "expertmesh",
            "bench",
            "serve",
            "--base-url",
            server.url,
            "--num-prompts",
            "5",
            "--max-concurrency",
            "1",
            "--json",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    deadline = time.monotonic() + 20
    while len(server.bodies) < 4 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    result = json.loads(out.splitlines()[-1])
    assert (result["completed"], result["cancelled"], result["failed"]) == (2, 1, 0)
    assert "Interrupted requests:" in err
    assert "Traceback" not in err


def test_help_teaches(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    text = CliRunner().invoke(app, ["bench", "serve", "--help"]).stdout
    for word in ("TTFT", "--burstiness", "Examples", "--ignore-eos", "EXPERTMESH_NUM_PROMPTS"):
        assert word in text


def test_the_limit_on_concurrency_that_holds():
    def limit(**given: Any) -> int | None:
        return ServeOptions(base_url="", workload=WorkloadOptions(), **given).concurrency

    assert limit() == 32
    assert limit(rate=4.0) is None
    assert limit(max_concurrency=0) is None
    assert limit(rate=4.0, max_concurrency=8) == 8
