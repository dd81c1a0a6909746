"""The link to one of two pools goes silent, slow or bad: no request fails, no token changes."""

import json
import os
import subprocess
import time
from typing import Any

import pytest

from tests.support.chaos import mirror, network
from tests.support.chaos.proxy import SILENT, FaultProxy, Wire
from tests.support.chaos.rig import Rig
from tests.support.chaos.streams import until
from tests.support.chaos.verdicts import assert_right

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def passed_over(rig: Rig, number: int = 0) -> None:
    """Wait until calls to the pool cease."""

    def unused() -> bool:
        before = rig.calls(number)
        time.sleep(0.3)
        return rig.calls(number) == before

    until(unused, within_s=30)


@pytest.mark.parametrize(
    "wires",
    [
        {"up": SILENT, "down": SILENT},  # L1
        {"down": SILENT},  # L2
        {"down": Wire(half_close=True)},  # L2
        {"down": Wire(cut=True)},  # I6
        {"down": Wire(delay_s=0.05)},  # I5
    ],
    ids=["blackhole", "one way", "half closed", "cut", "slow"],
)
def test_a_bad_link_is_passed_over_and_used_again_when_it_is_well(
    rig: Rig, proxy: FaultProxy, wires: dict[str, Wire]
):
    rig.connected(2)
    with rig.load(3) as running:
        running.warm()
        proxy.set(**wires)
        passed_over(rig)
        proxy.heal()
        rig.connected(2)
    assert_right(rig, running)
    rig.until_used(0)


def test_a_link_that_is_reset_again_and_again_loses_nothing(rig: Rig, proxy: FaultProxy):
    """L4, in small."""
    rig.connected(2)
    with rig.load(3) as running:
        running.warm()
        for _ in range(6):
            proxy.reset_connections()
            time.sleep(0.5)
    assert_right(rig, running)
    rig.connected(2)


def run_inside(program: str) -> dict[str, Any]:
    """Run a program in a network namespace of its own; returns its last line."""
    if reason := network.unavailable():
        pytest.skip(reason)
    done = subprocess.run(
        network.python_inside("-m", program),
        capture_output=True,
        text=True,
        timeout=150,
        env=network.environment_inside(),
    )
    assert done.returncode == 0, done.stderr[-1500:]
    return json.loads(done.stdout.splitlines()[-1])


def test_lost_packets_cost_time_and_nothing_else():
    """L3, its losses."""
    found = run_inside("tests.support.chaos.lossy_mesh")
    assert found["problems"] == []
    assert found["ejections"] <= 1


@pytest.mark.skipif(not os.path.exists(mirror.DEVICE), reason=f"needs {mirror.DEVICE}")
def test_late_overtaking_doubled_and_narrow_packets_cost_time_and_nothing_else():
    """L3: 10 ms +- 5 ms, which reorders packets; duplicates; 1 Mbit/s."""
    found = run_inside("tests.support.chaos.mirrored_mesh")
    assert found["problems"] == []
    assert found["ejections"] <= 1
    assert found["broken"] == 0
    assert all(found["tokens"].values()), "streams went on in each phase"
    assert min(found["reordered"], found["duplicated"]) > 10


def test_flipped_bits_never_reach_a_token(rig: Rig, proxy: FaultProxy):
    """I6, on the wire: whatever they hit, frame headers, ids or numbers."""
    rig.connected(2)
    with rig.load(3) as running:
        running.warm()
        proxy.set(up=Wire(flip_ratio=0.05), down=Wire(flip_ratio=0.05))
        time.sleep(3)
        until(lambda: proxy.flipped > 0, within_s=60)  # the other pool may be preferred for a while
        proxy.heal()
    assert_right(rig, running)
    rig.connected(2)
