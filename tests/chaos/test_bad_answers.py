"""Wrong answers, and requests that break pools: neither changes anyone's tokens."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from moe_model.tiny import write_tiny
from protos import attention_pb2
from tests.support.chaos.failing_pool import FAIL, mark_token
from tests.support.chaos.history import Ask
from tests.support.chaos.rig import ALL, LAYERS, Rig, metric
from tests.support.chaos.streams import Request, until
from tests.support.mesh import ServiceProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
MARKED = 7
EXPERTS = 8


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """One sound pool, to which tests add another one."""
    with Rig(tmp_path_factory.mktemp("answers"), (ALL,)) as running:
        yield running


def start_failing(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, how: str, *flags: str
) -> ServiceProcess:
    """A pool that fails in this way, with an id of its own."""
    monkeypatch.setenv(FAIL, how)
    flags = (*ALL, "--pool-id", how, *flags)
    return rig.mesh.start_pool(*flags, module="tests.support.chaos.failing_pool").wait_listening()


def test_corrupt_answers_are_asked_for_again(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    """I6: NaN, a wrong shape, an unknown call id, a frame cut short, a flipped bit."""
    failing = start_failing(rig, monkeypatch, "corrupt")
    rig.connected(2)
    with rig.load(3) as load:
        until(lambda: rig.failures(pool="corrupt", kind="corrupt") >= 10)
    verdict = rig.oracle.check(load.histories)
    assert verdict.right, verdict.problems[:5]
    assert rig.failures(pool="corrupt", kind="broken") == 0, "no sign that rows break pools"
    assert rig.failures(pool="p0") == 0
    assert failing.stop() == 0


def test_a_pool_that_answers_nothing_but_rubbish_is_ejected(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
):
    """I6: after three failures in a row it is the last resort."""
    failing = start_failing(rig, monkeypatch, "rubbish")
    rig.connected(2)
    with rig.load(3) as load:
        until(lambda: rig.ejections(pool="rubbish") > 0)
        load.warm(60)
    verdict = rig.oracle.check(load.histories)
    assert verdict.right, verdict.problems[:5]
    assert rig.ejections(pool="p0") == 0
    assert failing.stop() == 0


def test_a_pool_whose_device_fails_ends_with_a_status(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    """I8: the pool does not try to go on; its call is sent to another one."""
    lost = rig.router_metric("expertmesh_router_losses_total", role="pool")
    with rig.load(3) as load:
        load.warm()
        failing = start_failing(rig, monkeypatch, "device", "--canary-s", "0")
        assert failing.process.wait(30) == 1
        load.warm(60)
    failing.wait_for("CRITICAL .*the executor stopped")
    assert not any("Traceback" in line for line in failing.lines), "one line says it"
    verdict = rig.oracle.check(load.histories)
    assert verdict.right, verdict.problems[:5]
    assert rig.failures(pool="device", kind="broken") >= 1
    assert rig.router_metric("expertmesh_router_losses_total", role="pool") == lost + 1


def test_a_pool_whose_weights_change_in_memory_ends_itself(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
):
    """I7: its canary finds it. Tokens from before then cannot be trusted, so there are none."""
    failing = start_failing(rig, monkeypatch, "rot", "--canary-s", "1")
    checks = "expertmesh_pool_canary_checks_total"
    with rig.load(3) as load:
        load.warm()
        until(lambda: metric(failing, checks) > 2 * LAYERS * EXPERTS)
    failing.process.send_signal(signal.SIGUSR1)
    assert failing.process.wait(30) == 1
    failing.wait_for("CRITICAL .*layer 2 expert 0 answers differently than after loading")
    with rig.load(3) as after:
        after.warm()
    verdict = rig.oracle.check([*load.histories, *after.histories])
    assert verdict.right, verdict.problems[:5]


@contextmanager
def restarting(rig: Rig) -> Iterator[list[ServiceProcess]]:
    """Start a pool again when it has ended, as an orchestrator would. Yields those that ended."""
    ended: list[ServiceProcess] = []
    stopping = threading.Event()

    def run() -> None:
        while not stopping.wait(0.05):
            for number, pool in enumerate(rig.pools):
                if pool.process.poll() is not None:
                    ended.append(pool)
                    rig.start_pool(number)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield ended
    finally:
        stopping.set()
        thread.join(90)


def test_a_request_that_breaks_pools_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The rows that crash pools are found and their request ended; the others go on."""
    model = tmp_path / "model"
    write_tiny(model, seed=42, num_hidden_layers=LAYERS)
    mark_token(model, MARKED)
    monkeypatch.setenv(FAIL, "die_on_mark")
    rig = Rig(tmp_path, (ALL, ALL, ALL), pool_module="tests.support.chaos.failing_pool")
    rig.asks = []  # greedy only: sampling might draw the marked token
    with rig:
        innocent = [
            Request(rig.mesh.attention.address, Ask(prompt=(20 + number, 9), max_tokens=400))
            for number in range(2)
        ]
        for request in innocent:
            request.has(5)
        with restarting(rig) as ended:
            guilty = Request(rig.mesh.attention.address, Ask(prompt=(5, MARKED, 9), max_tokens=9))
            history = guilty.wait(120)
            verdict = rig.oracle.check([request.wait(120) for request in innocent])
            time.sleep(0.2)
        assert [(end.reason, end.retryable) for end in history.terminals] == [
            (attention_pb2.FINISH_REASON_ERROR, False)
        ]
        assert history.tokens == []
        assert verdict.right, verdict.problems
        assert {pool.process.returncode for pool in ended} == {9}
        assert len(ended) <= 6, "each bisection may cost one pool, and the lone request two"
