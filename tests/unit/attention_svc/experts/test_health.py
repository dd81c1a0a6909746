"""When is a pool late, slow, ejected, and trusted again?"""

import pytest

from attention_svc.experts.health import (
    FAILURES_TO_EJECT,
    MIN_TIMEOUT_S,
    UNKNOWN_TIMEOUT_S,
    PoolHealth,
    RetryBudget,
    speed_class,
    work_units,
)


def seen(network_s: float, unit_s: float, answers: int = 30) -> PoolHealth:
    health = PoolHealth()
    for _ in range(answers):
        health.answered(network_s + 8 * unit_s, 0.0, 8 * unit_s, 8)
    return health


def test_a_call_is_late_at_four_times_its_prediction_and_never_before_half_a_second():
    health = seen(0.001, 0.1)
    assert health.predict_s(8) == pytest.approx(0.801)
    assert health.timeout_s(8) == pytest.approx(4 * 0.801)
    assert health.timeout_s(8000) == pytest.approx(4 * 800.001), "no fixed cap"
    assert seen(0.001, 1e-5).timeout_s(8) == MIN_TIMEOUT_S
    assert PoolHealth().timeout_s(8) == UNKNOWN_TIMEOUT_S


def test_rows_beyond_the_reading_of_weights_cost_more():
    assert work_units(8, 8) < work_units(256, 8) < work_units(256, 32)


def test_a_delay_of_fifty_milliseconds_shows_within_a_few_calls():
    health = seen(0.0005, 0.0005)
    before_s = health.predict_s(8)
    for _ in range(3):
        health.answered(0.0545, 0.0, 0.004, 8)
    assert speed_class(health.predict_s(8), before_s) > 0


def test_noise_of_a_factor_of_two_is_no_other_class():
    times_s = [seen(0.001, 0.0005 * factor).predict_s(8) for factor in (0.5, 1.0, 2.0)]
    assert {speed_class(time_s, min(times_s)) for time_s in times_s} == {0}


def test_what_an_idle_pool_once_took_is_forgotten_in_time():
    health, fast_s = seen(0.001, 0.05), seen(0.001, 0.005).predict_s(8)
    assert speed_class(health.predict_s(8), fast_s) > 0
    for ping in range(120):
        health.pinged(0.001, float(ping))
    assert speed_class(health.predict_s(8), fast_s) == 0


def test_three_failures_in_a_row_eject_and_an_answer_between_forgives():
    health = seen(0.001, 0.001)
    for _ in range(4):
        assert not health.failed(0.0)
        assert not health.failed(0.0)
        health.answered(0.01, 0.0, 0.008, 8)
    assert [health.failed(0.0) for _ in range(FAILURES_TO_EJECT)] == [False, False, True]
    assert health.ejected


def test_a_quick_ping_after_the_pause_readmits_on_trial_and_pauses_grow():
    health, now, pauses = seen(0.001, 0.001), 100.0, []
    for _ in range(FAILURES_TO_EJECT - 1):
        health.failed(now)
    for _ in range(4):
        assert health.failed(now), "on trial: one failure is enough"
        start = now
        while health.ejected:
            now += 0.5
            health.pinged(2.0, now)
            assert health.ejected, "a slow ping is no probe"
            health.pinged(0.001, now)
        pauses.append(now - start)
    assert pauses == [1.0, 2.0, 4.0, 8.0]


def test_retries_are_a_tenth_of_the_calls_and_a_few_a_second():
    budget = RetryBudget(ratio=0.1, per_second=2, most=5)
    assert [budget.spend(1000.0) for _ in range(7)] == [True] * 5 + [False] * 2
    for _ in range(20):
        budget.earn()
    assert [budget.spend(1000.0) for _ in range(3)] == [True, True, False]
    assert [budget.spend(1001.0) for _ in range(3)] == [True, True, False]
