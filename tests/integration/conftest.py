"""Fixtures of the tests that start processes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.expertmesh.sandbox.working import work_folder
from tests.support.expertmesh.up import Up
from tests.support.mesh import ServiceProcess


@pytest.fixture
def processes() -> Iterator[list[ServiceProcess]]:
    """Those started by a test, stopped at its end."""
    started: list[ServiceProcess] = []
    yield started
    for process in reversed(started):
        if process.process.poll() is None:
            process.kill()


@pytest.fixture(scope="package")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a cluster as `expertmesh up` starts it, for tests that only ask."""
    cluster = Up(tmp_path_factory.mktemp("up") / "run")
    try:
        yield str(cluster.await_ready()["url"])
    finally:
        cluster.process.terminate()
        cluster.process.wait(60)


@pytest.fixture
def work() -> Iterator[Path]:
    with work_folder() as folder:
        yield folder
