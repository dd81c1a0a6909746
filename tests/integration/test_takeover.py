"""A second process with a pool's id takes over, in a mesh with a secret: real processes."""

import time
from pathlib import Path

import pytest

from moe_model.tiny import write_tiny
from protos import router_pb2, router_pb2_grpc
from rpc.access.secret import MeshSecret, write_secret
from rpc.channel import open_sync_channel
from tests.support.mesh import Mesh

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]


def uncovered(mesh: Mesh, secret: MeshSecret) -> int:
    with open_sync_channel(mesh.router.address, tls=secret, server_role="router") as channel:
        stub = router_pb2_grpc.RouterStub(channel)
        answer = stub.GetTopology(router_pb2.GetTopologyRequest(), timeout=20)
    return answer.topology.uncovered_pieces


def test_the_newer_takes_over_when_it_holds_as_much_and_no_piece_is_ever_without_holder(
    tmp_path: Path,
) -> None:
    write_tiny(tmp_path / "model", seed=7)
    write_secret(tmp_path / "secret")
    secret = ("--secret-file", str(tmp_path / "secret"))
    known = MeshSecret(tmp_path / "secret")
    pool = ("--pool-id", "p0", *secret)
    with Mesh(tmp_path / "model", [pool], router_flags=secret, attention_flags=secret) as mesh:
        (older,) = mesh.pools
        newer = mesh.start_pool(*pool)
        deadline = time.monotonic() + 60
        while older.process.poll() is None:
            assert uncovered(mesh, known) == 0
            assert time.monotonic() < deadline, mesh.router.lines[-20:]
            time.sleep(0.05)
        assert older.process.wait() == 1
        assert any("has a newer incarnation" in line for line in older.lines)
        assert newer.process.poll() is None
        assert uncovered(mesh, known) == 0
        audit = [line for line in mesh.router.lines if "p0" in line]
        told = " ".join(audit)
        assert told.index("a second pool p0 waits") < told.index("pool p0 of incarnation")
        mesh.attention.wait_for("pool p0 at .* connected")
