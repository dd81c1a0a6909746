"""`expertmesh up`, `status`, `chat`, `down` on the real services and the bundled model."""

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.expertmesh.up import Up, expertmesh, pids_of

SPLIT = ["router", "pool-0", "pool-1", "attention", "gateway"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def up(tmp_path: Path) -> Iterator:
    started: list[Up] = []

    def starter(*flags: str) -> Up:
        started.append(Up(tmp_path / "run", *flags))
        return started[-1]

    yield starter
    for cluster in started:
        if cluster.process.poll() is None:
            cluster.process.kill()
            cluster.process.wait()


def await_gone(pids: list[int], within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while alive := [pid for pid in pids if psutil.pid_exists(pid)]:
        assert time.monotonic() < deadline, f"still there: {alive}"
        time.sleep(0.05)


def test_a_detached_cluster_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    where = ("--run-dir", str(tmp_path / "run"))
    done = expertmesh("up", "--http-port", "0", *where, EXPERTMESH_DETACH="1")
    try:
        assert done.returncode == 0, done.stderr
        url = re.search(r"Ready: (http://127\.0\.0\.1:\d+)", done.stdout)[1]
        for service in SPLIT:
            assert f"{service}: ready" in done.stderr
        assert "memory needed" in done.stderr

        status = expertmesh("status", "--json", *where)
        report = json.loads(status.stdout)
        assert (status.returncode, report["phase"], report["url"]) == (0, "ready", url)
        assert [service["name"] for service in report["services"]] == SPLIT
        assert all(service["ready"] for service in report["services"])
        (seen,) = report["reach"]
        assert [(pool["pool_id"], pool["reachable"]) for pool in seen["pools"]] == [
            ("pool-0", True),
            ("pool-1", True),
        ]

        chat = expertmesh("chat", "--base-url", url, "--json", "--temperature", "0", "hello")
        assert chat.returncode == 0, chat.stderr
        answer = json.loads(chat.stdout)
        assert answer["content"]
        assert answer["finish_reason"] == "stop"

        for service in report["services"]:
            address = service.get("ops") or service["http"]
            assert "expertmesh_" in httpx.get(f"http://{address}/metrics").text
        pids = [report["pid"], *pids_of(report).values()]
    finally:
        down = expertmesh("down", *where)
    assert down.returncode == 0, down.stderr
    await_gone(pids)
    assert expertmesh("status", *where).returncode == 3


def test_in_process_answers_with_two_services(up) -> None:
    cluster = up("--in-process", "--ask", "What is 17 + 25?")
    state = cluster.await_ready()
    assert list(pids_of(state)) == ["attention", "gateway"]
    cluster.await_output("expertmesh chat --base-url")
    assert "tokens/s" in cluster.output
    cluster.process.send_signal(signal.SIGTERM)
    assert cluster.process.wait(30) == 0
    await_gone(list(pids_of(state).values()))


def test_pools_with_uneven_shares_of_the_layers_answer(up) -> None:
    cluster = up("--pool-layers", "0-2", "--pool-layers", "3", "--ask", "What is 17 + 25?")
    state = cluster.await_ready()
    assert "pool-0: layers 0-2, " in cluster.output
    ops = {service["name"]: service.get("ops") for service in state["services"]}
    held = {
        name: re.search(r"^expertmesh_pool_pieces (\S+)$", text, re.MULTILINE)[1]
        for name in ("pool-0", "pool-1")
        for text in [httpx.get(f"http://{ops[name]}/metrics").text]
    }
    assert float(held["pool-0"]) == 3 * float(held["pool-1"]) > 0
    cluster.await_output("expertmesh chat --base-url")
    assert "tokens/s" in cluster.output
    cluster.process.send_signal(signal.SIGTERM)
    assert cluster.process.wait(30) == 0


def test_ctrl_c_in_the_middle_of_an_answer_stops_everything_with_status_0(up) -> None:
    cluster = up()
    state = cluster.await_ready()
    body = {
        "model": httpx.get(f"{state['url']}/v1/models").json()["data"][0]["id"],
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 20000,
        "ignore_eos": True,
        "stream": True,
    }
    with (
        httpx.Client(timeout=60) as client,
        client.stream("POST", f"{state['url']}/v1/chat/completions", json=body) as answer,
    ):
        lines = answer.iter_lines()
        assert next(lines)
        cluster.process.send_signal(signal.SIGINT)
        assert cluster.process.wait(60) == 0, cluster.output
    await_gone(list(pids_of(state).values()))


def test_no_service_outlives_a_supervisor_killed_outright(up) -> None:
    cluster = up()
    state = cluster.await_ready()
    cluster.process.send_signal(signal.SIGKILL)
    cluster.process.wait()
    await_gone(list(pids_of(state).values()))
    where = ("--run-dir", str(cluster.run_dir))
    assert json.loads(expertmesh("status", "--json", *where).stdout)["phase"] == "stale"
    assert expertmesh("down", *where).returncode == 3


def test_a_pool_that_dies_ends_the_cluster_with_its_name(up) -> None:
    cluster = up()
    pids = pids_of(cluster.await_ready())
    os.kill(pids["pool-1"], signal.SIGKILL)
    assert cluster.process.wait(60) == 1
    assert "pool-1 was killed by SIGKILL; the end of" in cluster.output
    await_gone(list(pids.values()))


TOKENS = 400


def greedy_text(url: str, on_chunk: Callable[[int], None] = lambda count: None) -> str:
    """A long greedy answer, streamed; `on_chunk` is told how many chunks have come."""
    body = {
        "model": httpx.get(f"{url}/v1/models").json()["data"][0]["id"],
        "prompt": "Count: one, two, three,",
        "max_tokens": TOKENS,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
    }
    text, finished, count = "", None, 0
    with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=120) as answer:
        assert answer.status_code == 200, answer.read()
        for line in answer.iter_lines():
            data = line.removeprefix("data: ")
            if not line.startswith("data: ") or data == "[DONE]":
                continue
            event = json.loads(data)
            assert "choices" in event, f"an error in mid-answer: {event}"
            for choice in event["choices"]:
                text += choice["text"]
                finished = choice["finish_reason"] or finished
            count += 1
            on_chunk(count)
    assert finished == "length"
    return text


@pytest.mark.parametrize(
    ("flags", "victim"),
    [
        (("--pools", "3", "--replicas", "2"), "pool-1"),
        (("--attention", "2"), "attention-"),
        (("--attention", "2", "--in-process"), "attention-"),
    ],
)
def test_a_replicated_service_that_dies_costs_no_token_and_comes_back(
    up, flags: tuple[str, ...], victim: str
) -> None:
    """The last case: the gateway knows attention services by their addresses alone."""
    cluster = up(*flags)
    state = cluster.await_ready()
    before = pids_of(state)
    expected = greedy_text(state["url"])
    seen: list[dict] = []

    def kill(count: int) -> None:
        if count == 50:
            name = computing(state) if victim.endswith("-") else victim
            os.kill(before[name], signal.SIGKILL)
        if count == 150:
            seen.append(json.loads(expertmesh("status", "--json", *where).stdout))

    where = ("--run-dir", str(cluster.run_dir))
    assert greedy_text(state["url"], kill) == expected
    cluster.await_output("is ready again")
    cluster.await_phase("ready")
    (told,) = [line for line in cluster.output.splitlines() if "was killed by SIGKILL" in line]
    name = told.split()[0]
    assert victim in name
    if seen[0]["phase"] == "degraded":  # it may be back already
        assert name in seen[0]["missing"][0]
        assert seen[0]["serving"] is True
    status = expertmesh("status", *where)
    assert status.returncode == 0, status.stdout
    after = pids_of(cluster.state())
    assert after.pop(name) != before.pop(name)
    assert after == before
    assert greedy_text(state["url"]) == expected
    cluster.process.send_signal(signal.SIGINT)
    assert cluster.process.wait(60) == 0, cluster.output
    await_gone([*before.values(), *after.values()])


def computing(state: dict) -> str:
    """The attention service that has a running sequence."""
    for one in state["services"]:
        if one["name"].startswith("attention"):
            metrics = httpx.get(f"http://{one['ops']}/metrics").text
            if "\nexpertmesh_sequences_running 0.0" not in metrics:
                return one["name"]
    raise AssertionError("no attention service computes")


@pytest.mark.parametrize("keys", ["in the environment", "in a file"])
def test_settings_of_the_services_reach_them_from_the_environment_and_keys_protect(
    keys: str, tmp_path: Path
) -> None:
    """And chat, status and the demonstration question still work, with the same environment."""
    names = {
        "XDG_STATE_HOME": str(tmp_path),
        "EXPERTMESH_CORS_ORIGIN": "http://localhost:3000",
        "EXPERTMESH_SERVED_MODEL_NAME": "my name,other",
        "EXPERTMESH_MAX_RUNNING": "9",
        "EXPERTMESH_ASK": "What is 2 + 3?",
        "EXPERTMESH_PORT": "1",
    }
    if keys == "in a file":
        file = tmp_path / "keys"
        file.touch(mode=0o600)
        file.write_text("sk-first-key\nsk-second-key\n")
        names["EXPERTMESH_API_KEY_FILE"] = str(file)
    else:
        names["EXPERTMESH_API_KEY"] = "sk-first-key,sk-second-key"
    done = expertmesh("up", "--http-port", "0", "--detach", "--max-waiting", "17", **names)
    try:
        assert done.returncode == 0, done.stderr
        assert "nothing reads EXPERTMESH_PORT (did you mean EXPERTMESH_HTTP_PORT" in done.stderr
        assert "model name: my name)" in done.stdout
        assert "tokens/s" in done.stdout, "the question was asked with the key"
        url = re.search(r"Ready: (http://127\.0\.0\.1:\d+)", done.stdout)[1]
        assert httpx.get(f"{url}/v1/models").status_code == 401
        for key in ("sk-first-key", "sk-second-key"):
            headers = {"Authorization": f"Bearer {key}", "Origin": "http://localhost:3000"}
            answer = httpx.get(f"{url}/v1/models", headers=headers)
            assert answer.status_code == 200
            assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
        chat = expertmesh("chat", "--json", "--temperature", "0", "hello", **names)
        assert chat.returncode == 0, chat.stderr
        report = json.loads(expertmesh("status", "--json", **names).stdout)
        assert (report["phase"], report["url"]) == ("ready", url)
        processes = [psutil.Process(pid) for pid in (report["pid"], *pids_of(report).values())]
        lines = [" ".join(process.cmdline()) for process in processes]
        assert not any("sk-first-key" in line for line in lines), "keys are for no process list"
        (attention,) = [line for line in lines if "-m attention_svc" in line]
        assert "--max-running=9 --max-waiting=17" in attention
    finally:
        down = expertmesh("down", **names)
    assert down.returncode == 0, down.stderr
    await_gone([process.pid for process in processes])
