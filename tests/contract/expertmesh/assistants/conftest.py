"""Fixtures: servers that answer as a test says."""

from collections.abc import Callable, Iterator

import pytest

from tests.support.expertmesh.fake_openai_server import FakeServer, Script


@pytest.fixture
def serve() -> Iterator[Callable[[Script], FakeServer]]:
    started: list[FakeServer] = []

    def start(script: Script) -> FakeServer:
        started.append(FakeServer(script))
        return started[-1]

    yield start
    for one in started:
        one.close()
