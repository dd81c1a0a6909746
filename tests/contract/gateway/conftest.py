"""Fixtures: one event loop, one checkpoint folder, and gateways on them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from moe_model.text.tokenizer import Tokenizer
from tests.support.gateway.harness import Harness, LoopThread, ready_status
from tests.support.gateway.model import ROOMY_CONTEXT, write_tiny_model


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny_model"))


@pytest.fixture(scope="session")
def tokenizer(model_folder: Path) -> Tokenizer:
    return Tokenizer.load(model_folder)


@pytest.fixture(scope="session")
def loop_thread() -> Iterator[LoopThread]:
    loop = LoopThread()
    yield loop
    loop.close()


@pytest.fixture(scope="session")
def _shared_gateway(loop_thread: LoopThread, model_folder: Path) -> Iterator[Harness]:
    harness = Harness(loop_thread, model_folder)
    yield harness
    harness.close()


@pytest.fixture
def gateway(_shared_gateway: Harness) -> Harness:
    """A gateway with default settings; its fake attention service starts without a script."""
    _shared_gateway.reset()
    return _shared_gateway


@pytest.fixture
def make_gateway(loop_thread: LoopThread, model_folder: Path) -> Iterator[Callable[..., Harness]]:
    """Gateways with settings of their own, closed at the end of the test."""
    made: list[Harness] = []

    def make(**options: Any) -> Harness:
        made.append(Harness(loop_thread, options.pop("model_folder", model_folder), **options))
        return made[-1]

    yield make
    for harness in made:
        harness.close()


@pytest.fixture(scope="session")
def roomy_options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of a gateway whose context has room for tools."""
    folder = write_tiny_model(tmp_path_factory.mktemp("roomy"), context=ROOMY_CONTEXT)
    return {"model_folder": folder, "status": ready_status(ROOMY_CONTEXT)}


@pytest.fixture(scope="session")
def _shared_roomy_gateway(
    loop_thread: LoopThread, roomy_options: dict[str, Any]
) -> Iterator[Harness]:
    harness = Harness(loop_thread, **roomy_options)
    yield harness
    harness.close()


@pytest.fixture
def roomy_gateway(_shared_roomy_gateway: Harness) -> Harness:
    """Like `gateway`, with room for tools in its context."""
    _shared_roomy_gateway.reset()
    return _shared_roomy_gateway


@pytest.fixture(scope="module")
def _three_replicas(loop_thread: LoopThread, model_folder: Path) -> Iterator[Harness]:
    harness = Harness(loop_thread, model_folder, fakes=3, poll_interval_s=60)
    harness.wait_for(lambda: all(r.ready for r in harness.service.gateway.pool.replicas))
    yield harness
    harness.close()


@pytest.fixture
def three_replicas(_three_replicas: Harness) -> Harness:
    """A gateway with three services, none of which it asks again how it is."""
    _three_replicas.reset()
    return _three_replicas
