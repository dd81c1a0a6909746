"""What ends a run."""

import pytest

from expertmesh.agent.loop.recovery import GivenUpError, Recovery
from expertmesh.agent.tools.tool import Effect, Status


def make(recovery: Recovery, name: str, effect: Effect, status: Status = Status.OK) -> str:
    recovery.turn_begins()
    note = recovery.valid(name, {"x": 1})
    recovery.done(name, {"x": 1}, effect, status)
    return note


def test_a_repeated_call_is_noted_then_ends_the_run() -> None:
    recovery = Recovery()
    assert make(recovery, "read", Effect.READS) == ""
    assert "this very call" in make(recovery, "read", Effect.READS)
    with pytest.raises(GivenUpError, match="the same call of read for the third time"):
        make(recovery, "read", Effect.READS)


def test_other_reads_in_between_change_nothing() -> None:
    recovery = Recovery()
    for name in ("a", "b", "a", "b"):
        make(recovery, name, Effect.READS)
    with pytest.raises(GivenUpError):
        make(recovery, "a", Effect.READS)


def test_a_change_makes_other_calls_new_but_not_itself() -> None:
    recovery = Recovery()
    make(recovery, "test", Effect.RUNS)
    make(recovery, "edit", Effect.WRITES)
    assert make(recovery, "test", Effect.RUNS) == ""
    assert "this very call" in make(recovery, "test", Effect.RUNS)
    with pytest.raises(GivenUpError):
        make(recovery, "test", Effect.RUNS)


def test_an_edit_that_failed_is_no_change() -> None:
    recovery = Recovery()
    make(recovery, "test", Effect.READS)
    make(recovery, "edit", Effect.WRITES, Status.FAILED)
    assert make(recovery, "test", Effect.READS) != ""


def test_a_failed_check_makes_all_calls_new() -> None:
    recovery = Recovery()
    make(recovery, "a", Effect.READS)
    recovery.told()
    assert make(recovery, "a", Effect.READS) == ""


def test_three_unusable_answers_in_a_row() -> None:
    recovery = Recovery()
    for _ in range(2):
        recovery.turn_begins()
        recovery.invalid("bad")
        recovery.invalid("bad")
    make(recovery, "a", Effect.READS)
    for _ in range(2):
        recovery.turn_begins()
        recovery.invalid("bad")
    recovery.turn_begins()
    with pytest.raises(GivenUpError, match="3 unusable answers in a row, the last one: worse"):
        recovery.invalid("worse")


def test_three_refused_calls_in_a_row() -> None:
    recovery = Recovery()
    recovery.refused()
    recovery.refused()
    make(recovery, "a", Effect.READS)
    recovery.refused()
    recovery.refused()
    with pytest.raises(GivenUpError, match="not allowed"):
        recovery.refused()
