"""`python -m router_svc` as an operator meets it."""

import json
import queue
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos import router_pb2, router_pb2_grpc
from rpc.access.secret import MeshSecret, write_secret
from rpc.channel import open_sync_channel
from rpc.mesh.lease import Lease
from tests.support.places import ROOT

pytestmark = pytest.mark.slow

WAIT_S = 20.0


class Router:
    """One router process; reads its log until it is ready."""

    def __init__(self, *flags: str):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "router_svc", "--ops-listen", "127.0.0.1:0", *flags],
            stderr=subprocess.PIPE,
            text=True,
        )
        self.grpc = self.ops = ""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if found := re.search(r"listening grpc=(\S+) ops=(\S+)$", line):
                self.grpc, self.ops = found.groups()
            if line.rstrip().endswith("ready"):
                break

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://{self.ops}{path}", timeout=WAIT_S) as answer:
            return answer.read().decode()

    def topology(self) -> router_pb2.Topology:
        with open_sync_channel(self.grpc, tls=None, server_role="router") as channel:
            stub = router_pb2_grpc.RouterStub(channel)
            return stub.GetTopology(router_pb2.GetTopologyRequest(), timeout=WAIT_S).topology


@pytest.fixture
def start():
    routers: list[Router] = []

    def start_one(*flags: str) -> Router:
        routers.append(Router("--listen", "127.0.0.1:0", *flags))
        return routers[-1]

    yield start_one
    for router in routers:
        if router.process.poll() is None:
            router.process.kill()
        router.process.communicate(timeout=WAIT_S)


def test_serves_health_reports_itself_and_stops_cleanly(start):
    router = start()
    with open_sync_channel(router.grpc, tls=None, server_role="router") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", "expertmesh.router.v1.Router"):
            answer = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=WAIT_S)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert router.get("/livez") == "ok\n"
    assert router.get("/readyz") == "ready\n"
    assert "expertmesh_router_uncovered_pieces 0.0" in router.get("/metrics")
    router.process.send_signal(signal.SIGTERM)
    assert router.process.wait(timeout=WAIT_S) == 0


def test_a_hangup_reads_the_files_again_and_ends_nothing(start, tmp_path):
    path = tmp_path / "secret"
    write_secret(path)
    router = start("--secret-file", str(path))
    old = path.read_text()
    path.write_text("another secret of sufficient length\n" + old)
    for _ in range(3):
        router.process.send_signal(signal.SIGHUP)
    assert router.process.stderr is not None
    assert any("--secret-file: read again" in line for line in router.process.stderr)
    path.write_text("short")
    router.process.send_signal(signal.SIGHUP)
    assert any("the new files are not used" in line for line in router.process.stderr)
    path.write_text(old)
    with open_sync_channel(router.grpc, tls=MeshSecret(path), server_role="router") as channel:
        stub = router_pb2_grpc.RouterStub(channel)
        stub.GetTopology(router_pb2.GetTopologyRequest(), timeout=WAIT_S)
    router.process.send_signal(signal.SIGTERM)
    assert router.process.wait(timeout=WAIT_S) == 0


def test_stops_cleanly_with_members_and_watchers_connected(start):
    router = start()
    lease = Lease(
        router.grpc,
        None,
        _register(),
        lambda: router_pb2.MemberStatus(state=router_pb2.MEMBER_STATE_READY),
        lambda assignment: None,
        lambda reason: None,
    )
    lease.start()
    channel = grpc.insecure_channel(router.grpc)
    watching = router_pb2_grpc.RouterStub(channel).WatchTopology(
        iter([router_pb2.WatchTopologyRequest(watcher_id="test")]), timeout=WAIT_S
    )
    next(watching)
    deadline_s = time.monotonic() + WAIT_S
    while not lease.joined:
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    router.process.send_signal(signal.SIGINT)
    assert router.process.wait(timeout=WAIT_S) == 0
    lease.stop()
    channel.close()


def test_the_ops_pages_show_members_and_load(start):
    router = start()
    reported = router_pb2.LayerActivations(layer_idx=1, expert_ids=[0, 3], token_counts=[5, 2])
    status = router_pb2.MemberStatus(state=router_pb2.MEMBER_STATE_READY, activations=[reported])
    with open_sync_channel(router.grpc, tls=None, server_role="router") as channel:
        frames: queue.SimpleQueue[router_pb2.JoinRequest | None] = queue.SimpleQueue()
        frames.put(router_pb2.JoinRequest(register=_register()))
        call = router_pb2_grpc.RouterStub(channel).Join(iter(frames.get, None), timeout=WAIT_S)
        assert next(call).WhichOneof("frame") == "welcome"
        assert json.loads(router.get("/sd")) == [
            {"targets": ["127.0.0.1:50061"], "labels": {"role": "attention", "id": "attn-1"}}
        ]
        frames.put(router_pb2.JoinRequest(status=status))
        frames.put(router_pb2.JoinRequest(leave=router_pb2.Leave()))
        frames.put(None)
        assert list(call) == []
    load = json.loads(router.get("/experts/load"))
    assert (load["num_layers"], load["num_experts"]) == (2, 4)
    assert load["tokens"] == [[0, 0, 0, 0], [5, 0, 0, 2]]
    assert 'expertmesh_router_activations_total{layer="1"} 7.0' in router.get("/metrics")


def test_each_start_has_a_higher_epoch(start, tmp_path):
    flags = ("--state", str(tmp_path / "epoch"))
    epochs = []
    for _ in range(3):
        router = start(*flags)
        epochs.append(router.topology().version.epoch)
        router.process.kill()  # not even a crash may bring an epoch back
        router.process.wait(timeout=WAIT_S)
    assert epochs == [epochs[0], epochs[0] + 1, epochs[0] + 2]


@pytest.mark.parametrize("flag", ["--listen", "--ops-listen"])
def test_a_taken_port_is_exit_2_with_one_line(flag):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        flags = {"--listen": "127.0.0.1:0", "--ops-listen": "127.0.0.1:0", flag: address}
        done = _run(*[part for item in flags.items() for part in item])
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert f"{flag} {address}" in done.stderr


@pytest.mark.parametrize(
    "flags, named",
    [
        (("--lease-ms", "1"), "--lease-ms"),
        (("--listen", "nowhere"), "--listen"),
        (("--listen", "0.0.0.0:0"), "--insecure"),
        (("--tls-ca", "ca.pem"), "--tls-cert"),
        (("--log-level", "loud"), "--log-level"),
        (("--no-such-flag",), "--no-such-flag"),
    ],
)
def test_a_bad_flag_is_exit_2_and_named(flags, named):
    done = _run(*flags)
    assert done.returncode == 2
    assert named in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("content", ["", "-4\n", "soon\n", "9" * 40, "\0\0"])
def test_a_state_file_that_is_not_ours_is_refused_and_left_alone(tmp_path, content):
    state = tmp_path / "epoch"
    state.write_text(content)
    done = _run("--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--state", str(state))
    assert done.returncode == 2
    assert f"--state: {state}" in done.stderr
    assert state.read_text() == content


def test_never_imports_torch():
    code = "import sys, router_svc.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=WAIT_S * 3).returncode == 0


def _register() -> router_pb2.Register:
    return router_pb2.Register(
        role=router_pb2.MEMBER_ROLE_ATTENTION,
        member_id="attn-1",
        incarnation=1,
        address="127.0.0.1:50051",
        metrics_address="0.0.0.0:50061",
        checkpoint_id="sha256:one",
        num_layers=2,
        num_experts=4,
        protocol_major=1,
    )


def _run(*flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "router_svc", *flags],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        cwd=ROOT,
    )
