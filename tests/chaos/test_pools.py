"""Pools die, stall, come and go under load: no request fails, no token changes."""

import time

import pytest

from tests.chaos.failing_pool import FAIL
from tests.chaos.history import Ask, describe_end
from tests.chaos.rig import ALL, Rig
from tests.chaos.starving import starving
from tests.chaos.streams import Load, Request, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def assert_right(rig: Rig, load: Load) -> None:
    verdict = rig.oracle.check(load.histories)
    assert verdict.right, verdict.problems[:5]


def test_a_replica_killed_in_prefill_costs_the_current_chunk_only(rig: Rig):
    """I2."""
    rig.connected(2)
    long = [
        Ask(prompt=tuple(3 + (at * at + number) % 300 for at in range(900)), max_tokens=3)
        for number in range(3)
    ]
    failed = rig.failures()
    before = rig.calls(1)
    requests = [Request(rig.mesh.attention.address, ask) for ask in long]
    until(lambda: rig.calls(1) > before)
    rig.pools[1].kill()
    verdict = rig.oracle.check([request.wait() for request in requests])
    assert verdict.right, verdict.problems
    assert rig.failures() - failed <= 1
    rig.start_pool(1)
    rig.connected(2)


def test_without_any_holder_requests_wait_to_their_deadline_and_new_ones_are_refused(rig: Rig):
    """I3."""
    patient = Request(rig.mesh.attention.address, rig.asks[0]).has(5)
    hasty = Request(
        rig.mesh.attention.address, Ask(prompt=(7, 8), max_tokens=3000, timeout_ms=1500)
    ).has(5)
    for pool in rig.pools:
        pool.kill()
    history = hasty.wait()
    assert [end.retryable for end in history.terminals] == [True], describe_end(history)
    late = Request(rig.mesh.attention.address, rig.asks[1]).wait()
    assert late.status.startswith("UNAVAILABLE: no pool serves")
    for number in range(2):
        rig.start_pool(number)
    rig.connected(2)
    verdict = rig.oracle.check([patient.wait()])
    assert verdict.right, verdict.problems


def test_pools_join_and_leave_under_load(rig: Rig):
    """I9, I10: both of two are replaced one after the other; a third comes and goes."""
    rig.connected(2)
    with rig.load(3) as running:
        running.warm()
        rig.start_pool(2, *ALL)
        until(lambda: rig.calls(2) > 0)
        for number in (0, 1, 2):
            assert rig.pools[number].stop(30) == 0
            if number < 2:
                rig.start_pool(number)
                rig.connected(3)
        rig.connected(2)
        gone = rig.calls(2)
    assert_right(rig, running)
    assert rig.calls(2) == gone
    del rig.pools[2]


def test_a_pool_that_dies_at_every_first_call_leaves_the_rest_stable(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
):
    """I11, I8: a crash ends the process with a status, and whatever restarts it may do so."""
    monkeypatch.setenv(FAIL, "die")
    with rig.load(3) as running:
        running.warm()
        for _ in range(2):
            pool = rig.mesh.start_pool(
                *ALL, "--pool-id", "crashing", module="tests.chaos.failing_pool"
            )
            assert pool.process.wait(60) == 9
    assert_right(rig, running)
    rig.connected(2)


def test_starved_cores_are_no_false_alarm(rig: Rig):
    """M4."""
    rig.connected(2)
    broken, ejected = rig.failures(kind="broken"), rig.ejections()
    with rig.load(3) as running:
        running.warm()
        with starving(6):
            time.sleep(6)
    assert_right(rig, running)
    assert (rig.failures(kind="broken"), rig.ejections()) == (broken, ejected)
    rig.connected(2, within_s=2)
