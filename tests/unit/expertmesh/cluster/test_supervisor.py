"""Start order, watching, stopping and orphans, on real processes that stand in for services."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from expertmesh.cluster.state import RunDir
from expertmesh.commands.running import cluster_report
from tests.support.places import ROOT

pytestmark = pytest.mark.slow

HERE = ROOT / "tests" / "support" / "expertmesh"
WAIT_S = 20.0


class FakeCluster:
    """A supervisor in a child process, with its folder and journal."""

    def __init__(self, folder: Path, *settings: str, **environment: str):
        self.run_dir = folder / "run"
        self.journal_path = folder / "journal"
        self.output_path = folder / "output"
        # A foreign module in the working directory must not be run in place of a service.
        (folder / "fake_service.py").write_text("raise SystemExit('decoy')")
        with open(self.output_path, "wb") as output:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    str(HERE / "fake_cluster.py"),
                    str(self.run_dir),
                    str(self.journal_path),
                    *settings,
                ],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=folder,
                env={**os.environ, "PYTHONPATH": f"{ROOT}:{HERE}", **environment},
            )

    @property
    def output(self) -> str:
        return self.output_path.read_text()

    @property
    def journal(self) -> list[str]:
        return self.journal_path.read_text().splitlines() if self.journal_path.exists() else []

    def state(self) -> dict:
        try:
            return json.loads((self.run_dir / "cluster.json").read_text())
        except FileNotFoundError:
            return {}

    def await_phase(self, phase: str) -> dict:
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            state = self.state()
            if state.get("phase") == phase:
                return state
            assert self.process.poll() is None, self.output
            time.sleep(0.02)
        raise AssertionError(f"phase {phase} not reached: {self.state()}\n{self.output}")

    def wait(self) -> int:
        return self.process.wait(WAIT_S)

    def service_pids(self) -> list[int]:
        return [service["pid"] for service in self.state().get("services", [])]


@pytest.fixture
def start(tmp_path: Path) -> Iterator:
    clusters: list[FakeCluster] = []

    def starter(*settings: str, **environment: str) -> FakeCluster:
        clusters.append(FakeCluster(tmp_path, *settings, **environment))
        return clusters[-1]

    yield starter
    for cluster in clusters:
        if cluster.process.poll() is None:
            cluster.process.kill()
            cluster.process.wait()


def await_gone(pids: list[int], within_s: float = 5.0) -> None:
    deadline = time.monotonic() + within_s
    while any(psutil.pid_exists(pid) for pid in pids):
        assert time.monotonic() < deadline, "processes outlived their supervisor"
        time.sleep(0.02)


def test_stages_start_in_order_and_stop_in_reverse(start) -> None:
    cluster = start("pool-1=--load-s 0.5")
    state = cluster.await_phase("ready")
    assert state["url"].startswith("http://127.0.0.1:")
    pids = cluster.service_pids()
    cluster.process.send_signal(signal.SIGTERM)
    assert cluster.wait() == 0, cluster.output
    await_gone(pids)
    starts = [line.split()[0] for line in cluster.journal if " start" in line]
    stops = [line.split()[0] for line in cluster.journal if line.endswith("stop")]
    assert starts[0] == "router"
    assert set(starts[1:4]) == {"pool-0", "pool-1", "attention"}
    assert starts[4] == "gateway"
    assert stops[0] == "gateway"
    assert stops[-1] == "router"
    assert "pool-0 start 127.0.0.1:1" in cluster.journal  # got the router's bound address
    assert cluster.state() == {}


def test_progress_in_a_pipe_is_plain_lines_with_percentages(start) -> None:
    cluster = start("pool-0=--load-s 1.0")
    cluster.await_phase("ready")
    assert "router: starting\n" in cluster.output
    assert "pool-0: loading 50 %\n" in cluster.output
    assert "gateway: ready\n" in cluster.output
    assert "\x1b" not in cluster.output


def test_a_service_that_cannot_start_is_named_with_the_end_of_its_log(start) -> None:
    cluster = start("pool-1=--die-after-s 0.3 --load-s 60")
    assert cluster.wait() == 1
    assert "pool-1 exited with status 7" in cluster.output
    assert "fatal: out of luck" in cluster.output
    state = cluster.state()
    assert state["phase"] == "failed"
    assert "pool-1" in state["error"]
    await_gone(cluster.service_pids())


def test_a_service_that_dies_later_ends_the_cluster_with_exit_1(start) -> None:
    cluster = start()
    state = cluster.await_phase("ready")
    pids = {service["name"]: service["pid"] for service in state["services"]}
    os.kill(pids["attention"], signal.SIGKILL)
    assert cluster.wait() == 1
    assert "attention was killed by SIGKILL" in cluster.output
    await_gone(list(pids.values()))


def test_a_start_that_takes_too_long_is_given_up(start) -> None:
    cluster = start("attention=--load-s 600", FAKE_START_TIMEOUT_S="1")
    assert cluster.wait() == 1
    told = re.search(r"not ready in time: ([\w, -]+)", cluster.output)
    assert told is not None, cluster.output
    # On a busy machine that may be services before it, too.
    late = set(told[1].split(", "))
    assert late
    assert not late & set(re.findall(r"^(\S+): ready$", cluster.output, re.MULTILINE))
    assert "attention: ready" not in cluster.output


def test_no_service_outlives_a_supervisor_killed_outright(start) -> None:
    cluster = start("pool-0=--stubborn")
    cluster.await_phase("ready")
    pids = cluster.service_pids()
    assert len(pids) == 5
    cluster.process.kill()
    cluster.wait()
    await_gone(pids)


def test_a_signal_during_the_start_stops_what_has_started(start) -> None:
    cluster = start("attention=--load-s 600")
    deadline = time.monotonic() + WAIT_S
    while len(cluster.service_pids()) < 4 and time.monotonic() < deadline:
        time.sleep(0.02)
    pids = cluster.service_pids()
    cluster.process.send_signal(signal.SIGINT)
    assert cluster.wait() == 0
    await_gone(pids)


def test_a_second_signal_kills_what_does_not_stop(start) -> None:
    cluster = start("attention=--stubborn")
    cluster.await_phase("ready")
    pids = cluster.service_pids()
    cluster.process.send_signal(signal.SIGINT)
    cluster.await_phase("stopping")
    time.sleep(0.3)
    assert cluster.process.poll() is None
    cluster.process.send_signal(signal.SIGINT)
    assert cluster.process.wait(5) == 1
    assert "attention did not stop in time: killed" in cluster.output
    await_gone(pids)


def test_a_second_cluster_in_the_same_folder_is_refused(start) -> None:
    first = start()
    first.await_phase("ready")
    second = start()
    assert second.wait() == 1
    assert f"pid {first.process.pid}" in second.output
    assert "--run-dir" in second.output
    assert first.process.poll() is None


def test_the_demonstration_question_streams_thinking_and_answer(start) -> None:
    cluster = start("ask=how are you")
    cluster.await_phase("ready")
    deadline = time.monotonic() + WAIT_S
    while "expertmesh chat" not in cluster.output and time.monotonic() < deadline:
        time.sleep(0.02)
    output = cluster.output
    assert "let me think" in output
    assert "you said how are you" in output
    assert "tokens/s" in output
    assert f'OpenAI(base_url="{cluster.state()["url"]}/v1"' in output


REPLICATED = "group=pool-0 pool-1"


def kill_and_await(cluster, victim: str, until) -> dict:
    """SIGKILL a service, then poll the state until `until(service's entry, state)`."""
    pids = {one["name"]: one["pid"] for one in cluster.state()["services"]}
    os.kill(pids[victim], signal.SIGKILL)
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        state = cluster.state()
        (entry,) = [one for one in state["services"] if one["name"] == victim]
        if until(entry, state):
            return state
        assert cluster.process.poll() is None, cluster.output
        time.sleep(0.02)
    raise AssertionError(f"{entry}\n{cluster.output}")


def test_a_replicated_service_that_dies_is_started_again_and_the_rest_serves_on(start) -> None:
    cluster = start(REPLICATED, "pool-1=--load-s 2")  # so that it is away for long enough to look
    before = {one["name"]: one["pid"] for one in cluster.await_phase("ready")["services"]}
    missing = kill_and_await(
        cluster, "pool-1", lambda one, state: one["away"] and state["phase"] == "degraded"
    )
    (entry,) = [one for one in missing["services"] if one["name"] == "pool-1"]
    assert entry["last_death"] == "was killed by SIGKILL"
    report = cluster_report(RunDir(cluster.run_dir))
    assert (report["phase"], report["serving"]) == ("degraded", True)
    (line,) = report["missing"]
    assert line.startswith("pool-1 was killed by SIGKILL; it ")
    assert "pool-1.log" in line
    state = cluster.await_phase("ready")
    after = {one["name"]: one["pid"] for one in state["services"]}
    assert after.pop("pool-1") != before.pop("pool-1")
    assert after == before, "nobody else was touched"
    assert cluster.output.count("pool-1 was killed by SIGKILL") == 1
    assert "pool-1 is ready again" in cluster.output
    report = cluster_report(RunDir(cluster.run_dir))
    assert (report["phase"], report["missing"]) == ("ready", [])
    log = (cluster.run_dir / "pool-1.log").read_text()
    assert log.count("listening") == 2, "the log of the first life must not be lost"
    cluster.process.send_signal(signal.SIGTERM)
    assert cluster.wait() == 0
    await_gone([*before.values(), *(one["pid"] for one in state["services"])])


def test_the_death_of_the_last_of_a_group_ends_the_cluster(start) -> None:
    cluster = start(REPLICATED, "pool-1=--die-at-second-start")
    state = cluster.await_phase("ready")
    pids = {one["name"]: one["pid"] for one in state["services"]}
    kill_and_await(cluster, "pool-1", lambda one, state: one["deaths"] >= 3)
    os.kill(pids["pool-0"], signal.SIGKILL)
    assert cluster.wait() == 1
    assert (
        "pool-0 was killed by SIGKILL, and no other pool is running; the end of" in cluster.output
    )
    await_gone(list(pids.values()))


def test_with_a_group_the_others_still_end_the_cluster(start) -> None:
    cluster = start(REPLICATED)
    pids = {one["name"]: one["pid"] for one in cluster.await_phase("ready")["services"]}
    os.kill(pids["router"], signal.SIGKILL)
    assert cluster.wait() == 1
    assert "router was killed by SIGKILL; the end of" in cluster.output
    await_gone(list(pids.values()))


def test_a_replicated_service_that_cannot_start_ends_the_start(start) -> None:
    cluster = start(REPLICATED, "pool-1=--die-after-s 0.2 --load-s 60")
    assert cluster.wait() == 1
    assert "pool-1 exited with status 7" in cluster.output


def test_a_cluster_with_a_service_away_stops_cleanly(start) -> None:
    cluster = start(REPLICATED, "pool-1=--die-at-second-start")
    cluster.await_phase("ready")
    pids = cluster.service_pids()
    kill_and_await(cluster, "pool-1", lambda one, state: one["deaths"] >= 2)
    cluster.process.send_signal(signal.SIGTERM)
    assert cluster.wait() == 0, cluster.output
    await_gone(pids)


def test_who_was_told_an_address_finds_the_service_there_again(start) -> None:
    """Without a router the gateway knows attention services by their addresses alone."""
    cluster = start("group=attention pool-1", "told=attention")
    state = cluster.await_phase("ready")
    (before,) = [one for one in state["services"] if one["name"] == "attention"]
    kill_and_await(cluster, "attention", lambda one, state: one["deaths"] and not one["away"])
    starts = [line for line in cluster.journal if line.startswith("attention start")]
    assert len(starts) == 2
    listens = [line.split()[-1] for line in cluster.journal if line.startswith("attention listen")]
    assert listens == ["127.0.0.1:0", before["grpc"]]
