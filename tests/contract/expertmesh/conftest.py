"""Fixtures: a gateway with room for an agent's prompts, and a folder to work in."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from moe_model.text.tokenizer import Tokenizer
from tests.support.expertmesh.agent_run import CONTEXT
from tests.support.expertmesh.agent_scripts import Scripts
from tests.support.gateway.harness import Harness, LoopThread, ready_status
from tests.support.gateway.model import write_tiny_model


@pytest.fixture(scope="session")
def agent_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("agent_model"), context=CONTEXT)


@pytest.fixture(scope="session")
def tokenizer(agent_model: Path) -> Tokenizer:
    return Tokenizer.load(agent_model)


@pytest.fixture
def scripts(tokenizer: Tokenizer) -> Scripts:
    return Scripts(tokenizer)


@pytest.fixture(scope="session")
def agent_loop() -> Iterator[LoopThread]:
    loop = LoopThread()
    yield loop
    loop.close()


@pytest.fixture(scope="session")
def _shared(agent_loop: LoopThread, agent_model: Path) -> Iterator[Harness]:
    harness = Harness(agent_loop, agent_model, status=ready_status(CONTEXT))
    yield harness
    harness.close()


@pytest.fixture
def gateway(_shared: Harness) -> Harness:
    """Without a script yet."""
    _shared.reset()
    return _shared


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"
