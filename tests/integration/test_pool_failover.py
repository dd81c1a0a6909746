"""With a replica a pool's death costs one retried call; without one, requests wait for it."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from minimax_m2.checkpoint import Checkpoint
from minimax_m2.reference import ReferenceModel
from minimax_m2.tiny import write_tiny
from protos import attention_pb2
from tests.integration.mesh import Mesh
from tests.integration.test_pool_failure import LATER_S, PROMPT, Request, readyz, until_readyz

TOKENS = 400
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("failover") / "model"
    write_tiny(folder, seed=23, fp8=True)
    return folder


@pytest.fixture
def mesh(model: Path) -> Iterator[Mesh]:
    """Two pools that both hold everything."""
    with Mesh(model, ((), ())) as running:
        yield running


@pytest.fixture(scope="module")
def expected(model: Path) -> list[int]:
    return ReferenceModel(Checkpoint.open(model)).greedy(PROMPT, TOKENS, frozenset())


def assert_right(requests: list[Request], expected: list[int]) -> None:
    for request in requests:
        request.wait(60)
        assert request.error is None, request.error
        assert request.finished is not None
        assert request.finished.reason == attention_pb2.FINISH_REASON_LENGTH
        assert request.tokens == expected, "a lost, doubled or wrong token"


def start(mesh: Mesh, count: int) -> list[Request]:
    requests = [Request(mesh.attention.address, max_tokens=TOKENS) for _ in range(count)]
    for request in requests:
        assert request.started.wait(LATER_S)
    return requests


def test_a_killed_replica_fails_no_request_and_changes_no_token(mesh: Mesh, expected: list[int]):
    requests = start(mesh, 3)
    mesh.pools[0].kill()
    assert_right(requests, expected)
    assert readyz(mesh.attention.ops_address)[0] == 200


def test_a_stopped_replica_is_passed_over_and_serves_again(mesh: Mesh, expected: list[int]):
    requests = start(mesh, 2)
    mesh.pools[1].process.send_signal(signal.SIGSTOP)
    try:
        assert_right(requests, expected)
    finally:
        mesh.pools[1].process.send_signal(signal.SIGCONT)
    # Back in service: the other one may now go.
    time.sleep(3)
    requests = start(mesh, 2)
    mesh.pools[0].kill()
    assert_right(requests, expected)


def test_requests_wait_for_the_only_holder_and_finish_without_a_lost_token(
    model: Path, expected: list[int]
):
    with Mesh(model, (("--layers", "0,2"), ("--layers", "1"))) as mesh:
        requests = start(mesh, 2)
        mesh.pools[1].kill()
        until_readyz(mesh.attention.ops_address, 503)
        assert all(request.is_alive() for request in requests)
        mesh.start_pool("--layers", "1").wait_listening()
        assert_right(requests, expected)
        until_readyz(mesh.attention.ops_address, 200)
