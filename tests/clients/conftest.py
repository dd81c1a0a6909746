"""Fixtures: a gateway with a context for agents' prompts, and an empty home for the client."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.limits import Limits
from moe_model.text.tokenizer import Tokenizer
from tests.support.clients.environments import INSTALL_S
from tests.support.clients.programs import RUN_S
from tests.support.clients.scripted import CONTEXT
from tests.support.clients.sdks import KEY
from tests.support.gateway.harness import Harness, LoopThread, ready_status
from tests.support.gateway.model import write_tiny_model


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    skip = pytest.mark.skip(reason="runs with `make test-clients`")
    for item in items:
        if here not in item.path.parents:
            continue
        # The first test of a client installs it.
        item.add_marker(pytest.mark.timeout(INSTALL_S + RUN_S))
        if not os.environ.get("EXPERTMESH_TEST_CLIENTS"):
            item.add_marker(skip)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"), context=CONTEXT)


@pytest.fixture(scope="session")
def tokenizer(model_folder: Path) -> Tokenizer:
    return Tokenizer.load(model_folder)


@pytest.fixture
def gateway(model_folder: Path) -> Iterator[Harness]:
    loop = LoopThread()
    # On a busy machine, too, a refusal shall be a status and no event of the stream.
    limits = Limits(early_error_wait_s=10.0)
    harness = Harness(loop, model_folder, limits=limits, status=ready_status(CONTEXT))
    yield harness
    harness.close()
    loop.close()


@pytest.fixture(params=[{"restore_thinking": "always"}, {"api_key": (KEY,)}], ids=["always", "key"])
def restoring(request: pytest.FixtureRequest, model_folder: Path) -> Iterator[Harness]:
    """A gateway that puts back the thinking that a client drops: for all, or for its key."""
    loop = LoopThread()
    harness = Harness(loop, model_folder, status=ready_status(CONTEXT), **request.param)
    yield harness
    harness.close()
    loop.close()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder
