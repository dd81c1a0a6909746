"""Pools die, stall, come and go under load: no request fails, no token changes."""

import signal
import time
from pathlib import Path

import pytest

from moe_model.tiny import write_tiny
from tests.support.attention_svc.long_requests import until_readyz
from tests.support.chaos.failing_pool import FAIL
from tests.support.chaos.history import Ask, check_prefix, describe_end
from tests.support.chaos.rig import ALL, LAYERS, Rig
from tests.support.chaos.starving import starving
from tests.support.chaos.streams import Request, until
from tests.support.chaos.verdicts import assert_right
from tests.support.mesh import ServiceProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def rows(*asks: Ask) -> int:
    """Rows these requests need: none computed twice, and none for the last token."""
    return sum(len(ask.prompt) + ask.max_tokens - 1 for ask in asks)


def test_a_replica_killed_in_decode_costs_one_call_and_is_told_of_once(rig: Rig):
    """I1."""
    rig.connected(2)
    failed = rig.failures()
    told = len(rig.mesh.attention.lines)
    with rig.load(8) as running:
        running.warm()
        rig.pools[1].kill()
        rig.connected(1)
        running.warm(40)
    assert_right(rig, running)
    assert rig.failures() - failed <= 1
    warnings = [line for line in rig.mesh.attention.lines[told:] if " WARNING " in line]
    assert len(warnings) == 1, warnings
    assert "pool p1" in warnings[0]
    rig.start_pool(1)
    rig.connected(2)


def test_a_replica_killed_in_prefill_costs_the_current_chunk_only(rig: Rig):
    """I2."""
    rig.connected(2)
    long = [
        Ask(prompt=tuple(3 + (at * at + number) % 300 for at in range(900)), max_tokens=3)
        for number in range(3)
    ]
    failed, computed = rig.failures(), rig.rows_computed()
    before = rig.calls(1)
    requests = [Request(rig.mesh.attention.address, ask) for ask in long]
    until(lambda: rig.calls(1) > before)
    rig.pools[1].kill()
    verdict = rig.oracle.check([request.wait() for request in requests])
    assert verdict.right, verdict.problems
    assert rig.failures() - failed <= 1
    assert rig.rows_computed() - computed == rows(*long)
    rig.start_pool(1)
    rig.connected(2)


def test_without_any_holder_requests_wait_to_their_deadline_and_new_ones_are_refused(rig: Rig):
    """I3; requests that waited go on without a second prefill."""
    rig.connected(2)
    computed = rig.rows_computed()
    patient = Request(rig.mesh.attention.address, rig.asks[0]).has(5)
    hasty = Request(
        rig.mesh.attention.address, Ask(prompt=(7, 8), max_tokens=3000, timeout_ms=1500)
    ).has(5)
    for pool in rig.pools:
        pool.kill()
    history = hasty.wait()
    assert [end.retryable for end in history.terminals] == [True], describe_end(history)
    cut_off = check_prefix(history, rig.oracle.tokens(history.ask))
    assert cut_off.right, cut_off.problems
    assert "no pool serves" in until_readyz(rig.mesh.attention.ops_address, 503)
    late = Request(rig.mesh.attention.address, rig.asks[1]).wait()
    assert late.status.startswith("UNAVAILABLE: no pool serves")
    for number in range(2):
        rig.start_pool(number)
    rig.connected(2)
    until_readyz(rig.mesh.attention.ops_address, 200)
    verdict = rig.oracle.check([patient.wait()])
    assert verdict.right, verdict.problems
    begun = len(history.ask.prompt) + len(history.tokens)
    assert rig.rows_computed() - computed <= rows(patient.history.ask) + begun


def test_a_stopped_replica_is_passed_over_and_its_late_answers_are_ignored(rig: Rig):
    """I4."""
    rig.connected(2)
    rig.until_used(1)  # killed several times by now, it may have been held back
    late = rig.failures(pool="p1", kind="timeout")
    with rig.load(3) as running:
        running.warm()
        rig.pools[1].process.send_signal(signal.SIGSTOP)
        try:
            until(lambda: rig.failures(pool="p1", kind="timeout") > late)
            running.warm(150)
        finally:
            rig.pools[1].process.send_signal(signal.SIGCONT)
        answered = rig.calls(1)
        until(lambda: rig.calls(1) > answered)
    assert_right(rig, running)
    assert rig.failures(pool="p1", kind="timeout") - late <= 3
    rig.connected(2)


def test_weights_of_another_checkpoint_are_refused_under_load(rig: Rig, tmp_path: Path):
    """I7, I12: the same pieces with another fingerprint."""
    write_tiny(tmp_path, seed=40, num_hidden_layers=LAYERS, max_position_embeddings=4096)
    rig.connected(2)
    with rig.load(3) as running:
        running.warm()
        flags = ("--model", str(tmp_path), "--pool-id", "stranger")
        stranger = rig.mesh.start_pool(*ALL, *flags)
        assert stranger.process.wait(60) == 1
    assert_right(rig, running)
    stranger.wait_for("refused this member: checkpoint_id .* is not the mesh's")
    assert rig.metric("expertmesh_expert_rpc_inflight", pool="stranger") == 0
    assert rig.calls_of("stranger") == 0


def test_of_two_processes_with_one_id_the_newer_serves_and_the_stale_one_ends(rig: Rig):
    """I12: as after a partition, the older process comes back after it was replaced."""
    rig.connected(2)
    stale = rig.pools[1]
    with rig.load(3) as running:
        running.warm()
        stale.process.send_signal(signal.SIGSTOP)
        try:
            rig.start_pool(1)
            answered = rig.calls(1)
            until(lambda: rig.calls(1) > answered)
        finally:
            stale.process.send_signal(signal.SIGCONT)
        assert stale.process.wait(30) == 1
        answered = rig.calls(1)
        until(lambda: rig.calls(1) > answered)
    assert_right(rig, running)
    stale.wait_for("fenced: .* has a newer incarnation")
    rig.connected(2)


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


def test_a_pool_in_a_crash_loop_is_held_back_and_told_of_while_the_rest_is_stable(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
):
    """I11: it dies at its first call, whenever it is started again."""
    monkeypatch.setenv(FAIL, "die")

    def start() -> ServiceProcess:
        flags = (*ALL, "--pool-id", "crashing")
        return rig.mesh.start_pool(
            *flags, module="tests.support.chaos.failing_pool"
        ).wait_listening()

    with rig.load(3) as running:
        running.warm()
        for _ in range(3):
            assert start().process.wait(60) == 9
        until(lambda: rig.router_metric("expertmesh_router_crash_looping_pools") == 1)
        fourth = start()
        rig.mesh.router.wait_for("pool crashing keeps crashing: held back for 2 s")
        until(lambda: "held back" in rig.unready_reason("crashing"))
        assert fourth.process.poll() is None
        assert fourth.process.wait(60) == 9, "it is tried again when its time is over"
        start()
        rig.mesh.router.wait_for("pool crashing keeps crashing: held back for 4 s")
    assert_right(rig, running)
    assert rig.mesh.pools.pop().stop() in (0, 9)
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
