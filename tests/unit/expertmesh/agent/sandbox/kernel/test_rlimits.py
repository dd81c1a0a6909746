"""The kernel's own limits stand behind the watchdog's, and threads do not run into them."""

import os
import platform
import threading

import pytest

from expertmesh.agent.sandbox.kernel.rlimits import counts_by_namespace, rlimits
from expertmesh.agent.sandbox.kernel.tasks import tasks_of
from expertmesh.agent.sandbox.policy import Limits


def test_they_are_looser_than_the_watchdogs() -> None:
    limits = Limits(cpu_s=2.5, processes=10, memory_bytes=1000, file_bytes=77)
    assert rlimits(limits, others_tasks=5) == {
        "nproc": 45, "fsize": 77, "cpu": 4, "data": 4000, "core": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("release", "expected"),
    [("5.13.19-generic", False), ("5.14.0", True), ("6.1.0-18-amd64", True), ("4.19", False)],
)
def test_old_kernels_count_all_tasks_of_a_user(
    monkeypatch: pytest.MonkeyPatch, release: str, expected: bool
) -> None:
    monkeypatch.setattr(platform, "release", lambda: release)
    assert counts_by_namespace() is expected


def test_threads_are_tasks() -> None:
    done = threading.Event()
    before = tasks_of(os.getuid())
    threads = [threading.Thread(target=done.wait) for _ in range(50)]
    for thread in threads:
        thread.start()
    try:
        assert tasks_of(os.getuid()) > before  # others of this user may have ended
    finally:
        done.set()
        for thread in threads:
            thread.join()
