"""Answers that are wrong, and requests that break pools: neither reaches anybody's tokens."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from minimax_m2.tiny import write_tiny
from protos import attention_pb2
from tests.chaos.failing_pool import FAIL, mark_token
from tests.chaos.history import Ask
from tests.chaos.rig import ALL, LAYERS, Rig
from tests.chaos.streams import Request
from tests.integration.mesh import ServiceProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
MARKED = 7


def test_corrupt_answers_are_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """I6: NaN, wrong shape, an id nobody asked, a frame cut short, a flipped bit."""
    with Rig(tmp_path, (ALL,)) as rig:
        monkeypatch.setenv(FAIL, "corrupt")
        rig.start_pool(1, *ALL, module="tests.chaos.failing_pool")
        rig.connected(2)
        with rig.load(3) as load:
            load.warm(60)
        verdict = rig.oracle.check(load.histories)
        assert verdict.right, verdict.problems[:5]
        assert rig.failures(pool="p1", kind="corrupt") > 0
        assert rig.failures(pool="p0") == 0


@contextmanager
def restarting(rig: Rig) -> Iterator[list[ServiceProcess]]:
    """As an orchestrator would: a pool that has ended is started again. Yields all that ended."""
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
    """Whatever crashes pools is taken apart from the others' rows and ended; they go on."""
    model = tmp_path / "model"
    write_tiny(model, seed=42, num_hidden_layers=LAYERS)
    mark_token(model, MARKED)
    monkeypatch.setenv(FAIL, "die_on_mark")
    rig = Rig(tmp_path, (ALL, ALL, ALL), pool_module="tests.chaos.failing_pool")
    rig.asks = []  # nothing sampled: it could come upon the marked token
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
