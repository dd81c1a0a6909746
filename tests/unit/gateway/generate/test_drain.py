"""When is a refused client told to come back?"""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.generate.drain import Drain
from gateway.http.errors import retry_after


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def serve(drain: Drain, clock: Clock, count: int, every_s: float) -> None:
    for _ in range(count):
        clock.now_s += every_s
        drain.leave(served=True)


def fill(drain: Drain, count: int) -> None:
    for _ in range(count):
        drain.enter()


def test_the_wait_is_what_is_ahead_at_the_pace_seen(clock: Clock) -> None:
    drain = Drain(clock)
    fill(drain, 100)
    serve(drain, clock, 40, every_s=0.5)
    assert drain.wait_s(drain.inside) == pytest.approx(60 * 0.5, rel=0.05)


def test_before_the_first_was_served_the_wait_grows_with_time(clock: Clock) -> None:
    drain = Drain(clock)
    fill(drain, 2)
    assert drain.wait_s(2) == 0
    clock.now_s += 4
    assert drain.wait_s(2) == pytest.approx(8, rel=0.1)


def test_idle_time_does_not_make_a_queue_slow(clock: Clock) -> None:
    drain = Drain(clock)
    fill(drain, 10)
    serve(drain, clock, 10, every_s=0.1)
    clock.now_s += 3600
    fill(drain, 50)
    assert drain.wait_s(50) == pytest.approx(5, rel=0.05)


def test_a_stall_is_noticed_and_a_new_pace_learnt(clock: Clock) -> None:
    drain = Drain(clock)
    fill(drain, 400)
    serve(drain, clock, 100, every_s=0.1)
    clock.now_s += 120
    assert drain.wait_s(10) > 60
    serve(drain, clock, 200, every_s=1.0)
    assert drain.wait_s(10) == pytest.approx(10, rel=0.05)


def test_who_gives_up_says_nothing_about_the_pace(clock: Clock) -> None:
    drain = Drain(clock)
    fill(drain, 20)
    serve(drain, clock, 5, every_s=1.0)
    before = drain.wait_s(10)
    for _ in range(15):
        drain.leave(served=False)
    assert drain.wait_s(10) == before
    assert drain.inside == 0


@given(st.floats(allow_nan=False))
def test_the_header_is_whole_seconds_between_1_and_60(wait_s: float) -> None:
    seconds = retry_after(wait_s)
    assert isinstance(seconds, int)
    assert 1 <= seconds <= 60
    if 1 <= wait_s <= 60:
        assert seconds == math.ceil(wait_s)
