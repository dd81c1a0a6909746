"""A pool dies, stalls or does not belong: requests end loudly, readiness follows, service resumes."""

import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc
import pytest

from moe_model.reference import ReferenceModel
from moe_model.tiny import write_tiny
from moe_model.weights.checkpoint import Checkpoint
from protos import attention_pb2, attention_pb2_grpc
from tests.integration.mesh import Mesh

EXPERT_TIMEOUT_S = 2.0
REQUEST_TIMEOUT_S = 60.0
LATER_S = 20.0
"""Far below the requests' own deadline, far above what a busy machine needs."""
PROMPT = [5, 6, 7, 8]
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


class Request(threading.Thread):
    """A long greedy Generate call, followed from a thread."""

    def __init__(self, address: str, max_tokens: int = 500, prompt: Sequence[int] = PROMPT):
        super().__init__(daemon=True)
        self._address = address
        self._prompt = prompt
        self._max_tokens = max_tokens
        self.tokens: list[int] = []
        self.finished: attention_pb2.Finished | None = None
        self.error: grpc.RpcError | None = None
        self.started = threading.Event()
        self.start()

    def run(self) -> None:
        sampling = attention_pb2.SamplingParams(
            max_tokens=self._max_tokens, top_p=1.0, repetition_penalty=1.0, ignore_eos=True
        )
        request = attention_pb2.GenerateRequest(prompt_token_ids=self._prompt, sampling=sampling)
        with grpc.insecure_channel(self._address) as channel:
            stub = attention_pb2_grpc.AttentionStub(channel)
            try:
                for response in stub.Generate(request, timeout=REQUEST_TIMEOUT_S):
                    self.tokens += response.tokens.token_ids
                    self.started.set()
                    if response.WhichOneof("event") == "finished":
                        self.finished = response.finished
            except grpc.RpcError as error:
                self.error = error
        self.started.set()

    def wait(self, timeout_s: float) -> "Request":
        self.join(timeout_s)
        assert not self.is_alive(), "the request hangs"
        return self


def readyz(ops_address: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{ops_address}/readyz", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def until_readyz(ops_address: str, status: int) -> str:
    deadline = time.monotonic() + LATER_S
    while (got := readyz(ops_address))[0] != status:
        assert time.monotonic() < deadline, got
        time.sleep(0.05)
    return got[1]


def status_of(address: str) -> attention_pb2.GetStatusResponse:
    with grpc.insecure_channel(address) as channel:
        stub = attention_pb2_grpc.AttentionStub(channel)
        return stub.GetStatus(attention_pb2.GetStatusRequest(), timeout=10)


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


@pytest.mark.slow
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
        "expert_svc", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0",
        "--model", str(other), "--dtype", "float32", "--threads", "1",
        "--router", mesh.router.address,
    )  # fmt: skip
    assert stranger.process.wait(LATER_S) == 1
    stranger.wait_for("ERROR")
    refusals = [line for line in stranger.lines if "ERROR" in line]
    assert len(refusals) == 1
    assert "checkpoint" in refusals[0]
    assert not any("Traceback" in line for line in stranger.lines)
    assert_serves_the_references_tokens(mesh, model)
