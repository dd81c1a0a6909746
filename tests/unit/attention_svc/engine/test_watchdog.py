"""A step that hangs is noticed and logged once, and cleared when it goes on."""

import logging

import pytest

from attention_svc.engine.watchdog import StepProgress, Watchdog
from attention_svc.metrics import AttentionMetrics


class Watched:
    """A watchdog on a clock of its own, which looks once a second."""

    def __init__(self, limit_s: float = 10.0) -> None:
        self.now_s = 100.0
        self.progress = StepProgress()
        self.metrics = AttentionMetrics()
        self.pools = ["p1", "p2"]
        self.dog = Watchdog(
            self.progress,
            self.metrics,
            limit_s=limit_s,
            awaited=lambda: self.pools,
            clock=lambda: self.now_s,
        )

    def wait(self, seconds: int, moves: int = 0) -> None:
        for _ in range(seconds):
            self.now_s += 1
            self.progress.moves += moves
            self.dog.check()

    @property
    def stalls(self) -> float:
        return self.metrics.registry.get_sample_value("expertmesh_engine_stalls_total") or 0


def test_a_step_that_stands_still_is_told_of_once_and_its_end_too(
    caplog: pytest.LogCaptureFixture,
):
    caplog.set_level(logging.INFO)
    watched = Watched()
    watched.progress.stepping, watched.progress.layer_idx = True, 3
    watched.wait(9)
    assert (watched.dog.reason, watched.stalls) == ("", 0)
    watched.wait(100)
    assert watched.dog.reason == (
        "a step has made no progress for 10 s: layer 3, waiting for p1, p2"
    )
    assert watched.stalls == 1
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    watched.wait(1, moves=1)
    assert watched.dog.reason == ""
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    watched.wait(50)
    assert watched.stalls == 2, "the next stall is another one"


def test_a_slow_step_is_no_stall_while_its_layers_get_on():
    watched = Watched()
    watched.progress.stepping = True
    for _ in range(20):
        watched.wait(9)
        watched.wait(1, moves=1)
    assert watched.stalls == 0


def test_an_engine_without_work_does_not_stand_still():
    watched = Watched()
    watched.wait(1000)
    watched.progress.stepping = True  # after a long rest
    watched.wait(9)
    assert watched.dog.reason == ""
    watched.progress.stepping = False
    watched.wait(1000)
    assert watched.stalls == 0


def test_a_stalled_step_that_ends_is_forgiven():
    watched = Watched()
    watched.pools = []
    watched.progress.stepping = True
    watched.wait(20)
    assert watched.dog.reason.endswith("layer 0")
    watched.progress.stepping = False
    watched.wait(1)
    assert watched.dog.reason == ""
