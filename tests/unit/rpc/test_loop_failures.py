"""A loop that must go on does, and logs why a turn failed once a minute."""

import asyncio
import logging

import pytest

from rpc.loop_failures import AGAIN_S, LoopFailures

LOG = logging.getLogger("test_loop_failures")


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.exc_info]


def test_the_same_failure_is_told_once_a_minute_whatever_its_text_and_what_came_between(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now_s = 0.0
    heard: list[Exception] = []
    failures = LoopFailures(LOG, "cannot turn", on_failure=heard.append, clock=lambda: now_s)
    for turn in range(1000):
        now_s = turn * AGAIN_S / 250
        with failures:
            if turn % 3:
                raise ValueError(f"turn {turn}")
    assert told(caplog) == ["cannot turn"] * 4
    assert len(heard) == 666


def test_another_place_or_kind_is_another_failure(caplog: pytest.LogCaptureFixture) -> None:
    failures = LoopFailures(LOG, "cannot turn", clock=lambda: 0.0)
    for _ in range(3):
        with failures:
            raise ValueError("here")
        with failures:
            raise ValueError("and here")
        with failures:
            raise TypeError("and so")
    assert len(told(caplog)) == 3


def test_turns_without_a_failure_say_nothing(caplog: pytest.LogCaptureFixture) -> None:
    failures = LoopFailures(LOG, "cannot turn")
    with failures:
        pass
    assert not caplog.records


async def test_cancelling_ends_the_loop() -> None:
    failures = LoopFailures(LOG, "cannot turn")

    async def turn() -> None:
        while True:
            with failures:
                await asyncio.sleep(10)

    task = asyncio.create_task(turn())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)
