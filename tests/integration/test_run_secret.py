"""Other users of the machine can do nothing to a cluster run by `expertmesh up`."""

import json
import stat
import time
from pathlib import Path

import grpc
import psutil
import pytest

from protos import (
    attention_pb2,
    attention_pb2_grpc,
    expert_pb2,
    expert_pb2_grpc,
    router_pb2,
    router_pb2_grpc,
)
from tests.support.expertmesh.up import Up, expertmesh, pids_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

WAIT_S = 20.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    up = Up(tmp_path_factory.mktemp("cluster") / "run")
    try:
        up.await_ready()
        yield up
    finally:
        up.process.terminate()
        up.process.wait(60)


def address(cluster: Up, name: str) -> str:
    return next(one["grpc"] for one in cluster.state()["services"] if one["name"] == name)


def code_of(call) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as raised:
        call()
    return raised.value.code()


def test_the_secret_is_readable_by_its_owner_only_and_on_no_command_line(cluster: Up) -> None:
    path = cluster.run_dir / "secret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    secret = path.read_text().strip()
    for pid in [cluster.process.pid, *pids_of(cluster.state()).values()]:
        process = psutil.Process(pid)
        assert secret not in " ".join(process.cmdline())
        assert secret not in Path(f"/proc/{pid}/environ").read_text(errors="replace")
    logs = "".join(log.read_text() for log in cluster.run_dir.glob("*.log"))
    assert secret not in logs


def test_one_who_does_not_know_it_can_neither_join_nor_look_nor_compute(cluster: Up) -> None:
    forged = router_pb2.Register(
        role=router_pb2.MEMBER_ROLE_POOL,
        member_id="pool-0",
        incarnation=time.time_ns() // 1_000_000,
        address="127.0.0.1:9",
        checkpoint_id="any",
        num_layers=1,
        num_experts=1,
        protocol_major=1,
    )
    with grpc.insecure_channel(address(cluster, "router")) as channel:
        router = router_pb2_grpc.RouterStub(channel)
        for incarnation in (forged.incarnation, 2**64 - 1):
            forged.incarnation = incarnation
            frames = iter([router_pb2.JoinRequest(register=forged)])
            join = lambda: list(router.Join(frames, timeout=WAIT_S))  # noqa: E731, B023
            assert code_of(join) is grpc.StatusCode.UNAUTHENTICATED
        for method, request in (
            (router.GetTopology, router_pb2.GetTopologyRequest()),
            (router.DrainPool, router_pb2.DrainPoolRequest(pool_id="pool-0")),
            (router.Rebalance, router_pb2.RebalanceRequest()),
        ):
            call = lambda: method(request, timeout=WAIT_S)  # noqa: E731, B023
            assert code_of(call) is grpc.StatusCode.UNAUTHENTICATED
    with grpc.insecure_channel(address(cluster, "pool-0")) as channel:
        pool = expert_pb2_grpc.ExpertPoolStub(channel)
        request = expert_pb2.DescribePoolRequest()
        call = lambda: pool.DescribePool(request, timeout=WAIT_S)  # noqa: E731
        assert code_of(call) is grpc.StatusCode.UNAUTHENTICATED
    with grpc.insecure_channel(address(cluster, "attention")) as channel:
        attention = attention_pb2_grpc.AttentionStub(channel)
        request = attention_pb2.GenerateRequest(prompt_token_ids=[1])
        call = lambda: list(attention.Generate(request, timeout=WAIT_S))  # noqa: E731
        assert code_of(call) is grpc.StatusCode.UNAUTHENTICATED
    assert cluster.process.poll() is None
    chat = expertmesh("chat", "--base-url", cluster.state()["url"], "--json", "hello")
    assert chat.returncode == 0, chat.stderr


def test_commands_find_it_in_the_run_folder_and_ask_for_it_elsewhere(
    cluster: Up, tmp_path: Path
) -> None:
    here = ("--run-dir", str(cluster.run_dir))
    listed = expertmesh("pool", "list", "--json", *here)
    assert listed.returncode == 0, listed.stderr
    assert len(json.loads(listed.stdout)["pools"]) == 2
    status = json.loads(expertmesh("status", "--json", *here).stdout)
    assert all(row["answers"] for row in status["reach"])
    shown = expertmesh("experts", "show", "--json", *here)
    assert shown.returncode == 0, shown.stderr
    router = ("--router", address(cluster, "router"))
    elsewhere = {"EXPERTMESH_RUN_DIR": str(tmp_path)}
    refused = expertmesh("pool", "list", *router, **elsewhere)
    assert refused.returncode != 0
    assert "--secret-file" in refused.stderr
    given = expertmesh(
        "pool", "list", *router, "--secret-file", str(cluster.run_dir / "secret"), **elsewhere
    )
    assert given.returncode == 0, given.stderr
