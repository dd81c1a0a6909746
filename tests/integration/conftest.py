"""Fixtures of the tests that start processes."""

from collections.abc import Iterator

import pytest

from tests.support.mesh import ServiceProcess


@pytest.fixture
def processes() -> Iterator[list[ServiceProcess]]:
    """Those started by a test, stopped at its end."""
    started: list[ServiceProcess] = []
    yield started
    for process in reversed(started):
        if process.process.poll() is None:
            process.kill()
