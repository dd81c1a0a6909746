"""A pool dies, stalls or has other weights: requests fail, readiness follows, service resumes."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from moe_model.reference import ReferenceModel
from moe_model.tiny import write_tiny
from moe_model.weights.checkpoint import Checkpoint
from protos import attention_pb2
from tests.support.attention_svc.long_requests import (
    LATER_S,
    PROMPT,
    Request,
    readyz,
    status_of,
    until_readyz,
)
from tests.support.mesh import Mesh

pytestmark = pytest.mark.slow

EXPERT_TIMEOUT_S = 2.0
FIRST, SECOND = ("--layers", "0,2"), ("--layers", "1")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("failure") / "model"
    write_tiny(folder, seed=21, fp8=True)
    return folder


@pytest.fixture(scope="module")
def mesh(model: Path) -> Iterator[Mesh]:
    flags = ("--expert-timeout-s", str(EXPERT_TIMEOUT_S))
    with Mesh(model, (FIRST, SECOND), attention_flags=flags) as running:
        yield running


def assert_serves_the_references_tokens(mesh: Mesh, model: Path) -> None:
    request = Request(mesh.attention.address, max_tokens=12).wait(LATER_S)
    assert request.error is None
    expected = ReferenceModel(Checkpoint.open(model)).greedy(PROMPT, 12, frozenset())
    assert request.tokens == expected


def assert_ended_retryable(request: Request) -> None:
    request.wait(LATER_S)
    assert request.error is None, request.error
    assert request.finished is not None
    assert request.finished.reason == attention_pb2.FINISH_REASON_ERROR
    assert request.finished.retryable
    assert request.finished.error


def assert_unavailable(address: str) -> None:
    request = Request(address).wait(LATER_S)
    assert request.finished is None
    assert request.error is not None
    assert request.error.code() is grpc.StatusCode.UNAVAILABLE
    assert "no pool serves 8 pieces (layers 1)" in request.error.details()


def test_a_killed_pool_fails_its_requests_loudly_and_a_new_one_takes_over(mesh: Mesh, model: Path):
    address, ops = mesh.attention.address, mesh.attention.ops_address
    assert readyz(ops)[0] == 200
    requests = [Request(address) for _ in range(3)]
    for request in requests:
        assert request.started.wait(LATER_S)
    mesh.pools[-1].kill()
    for request in requests:
        assert_ended_retryable(request)
    assert "no pool serves 8 pieces (layers 1)" in until_readyz(ops, 503)
    status = status_of(address)
    assert (status.ready, status.running_sequences, status.kv_usage_ratio) == (False, 0, 0.0)
    assert_unavailable(address)
    mesh.start_pool(*SECOND).wait_listening()
    until_readyz(ops, 200)
    assert status_of(address).ready
    assert_serves_the_references_tokens(mesh, model)


def test_a_stopped_pool_fails_its_requests_in_time_and_comes_back(mesh: Mesh, model: Path):
    address, ops = mesh.attention.address, mesh.attention.ops_address
    request = Request(address)
    assert request.started.wait(LATER_S)
    pool = mesh.pools[-1].process
    pool.send_signal(signal.SIGSTOP)
    try:
        stopped = time.monotonic()
        assert_ended_retryable(request)
        # The expert call's own deadline, not the request's, with room for a busy machine.
        assert time.monotonic() - stopped < EXPERT_TIMEOUT_S + 5
        until_readyz(ops, 503)
        assert_unavailable(address)
    finally:
        pool.send_signal(signal.SIGCONT)
    until_readyz(ops, 200)
    assert_serves_the_references_tokens(mesh, model)


def test_a_pool_of_another_checkpoint_is_refused_and_the_mesh_serves_on(
    mesh: Mesh, model: Path, tmp_path: Path
):
    other = tmp_path / "other"
    write_tiny(other, seed=22, fp8=True)
    stranger = mesh.start(
        "expert_svc",
        "--listen",
        "127.0.0.1:0",
        "--ops-listen",
        "127.0.0.1:0",
        "--model",
        str(other),
        "--dtype",
        "f32",
        "--threads",
        "1",
        "--router",
        mesh.router.address,
    )
    assert stranger.process.wait(LATER_S) == 1
    stranger.wait_for("ERROR")
    refusals = [line for line in stranger.lines if "ERROR" in line]
    assert len(refusals) == 1
    assert "checkpoint" in refusals[0]
    assert not any("Traceback" in line for line in stranger.lines)
    assert_serves_the_references_tokens(mesh, model)
