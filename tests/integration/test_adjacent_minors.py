"""Services of two adjacent minors work together, whichever end is the older one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.frozen_protos import frozen
from tests.support.frozen_protos.old_peer import OldPeers
from tests.support.mesh import PORTS, ServiceProcess
from tests.support.places import DEMO_MODEL

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture
def start() -> Iterator[Any]:
    started: list[ServiceProcess] = []

    def start_one(module: str, *flags: str) -> ServiceProcess:
        started.append(ServiceProcess(module, flags))
        return started[-1]

    yield start_one
    for process in reversed(started):
        if process.process.poll() is None:
            process.stop()


def test_a_mesh_with_an_older_peer_at_every_hop_answers_as_ever(start: Any, tmp_path: Path) -> None:
    old = OldPeers(frozen(), 3)
    try:
        to_router, to_pool, to_attention = old.peers
        router = start("router_svc", *PORTS, "--state", str(tmp_path / "epoch"))
        to_router.target = router.wait_listening().address
        common = ("--model", str(DEMO_MODEL), "--dtype", "f32", "--threads", "1")
        member = (*PORTS, *common, "--router", to_router.address)
        pool = start("expert_svc", *member, "--advertise", to_pool.address)
        attention = start(
            "attention_svc", *member, "--advertise", to_attention.address, "--kv-memory", "16MiB"
        )
        to_pool.target = pool.wait_listening().address
        to_attention.target = attention.wait_listening().address
        attention.wait_for(r"attention ready$")
        # One gateway finds the older attention service by the router, one dials today's.
        gateways = [
            start("gateway", "--model", str(DEMO_MODEL), "--listen", "127.0.0.1:0", *flags)
            for flags in (
                ("--router", to_router.address),
                ("--attention", attention.address),
            )
        ]
        answers = []
        for gateway in gateways:
            gateway.wait_listening().wait_for(r" ready$")
            body = {
                "messages": [{"role": "user", "content": "Sort: pear, apple, fig"}],
                "model": "model",
                "seed": 4,
                "temperature": 1.0,
                "max_tokens": 24,
            }
            reply = httpx.post(
                f"http://{gateway.address}/v1/chat/completions", json=body, timeout=60
            )
            assert reply.status_code == 200, reply.text
            answers.append(reply.json()["choices"])
        assert answers[0] == answers[1]
        passed = {method for peer in old.peers for method in peer.methods}
        assert passed >= {
            "/expertmesh.router.v1.Router/Join",
            "/expertmesh.router.v1.Router/WatchTopology",
            "/expertmesh.expert.v1.ExpertPool/Execute",
            "/expertmesh.attention.v1.Attention/Generate",
            "/expertmesh.attention.v1.Attention/GetStatus",
        }
        # It was older: it passed on less than it was given, checksums for instance.
        assert min(to_pool.num_bytes_dropped, to_attention.num_bytes_dropped) > 0
        for service in (*gateways, attention, pool, router):
            assert service.stop() == 0
    finally:
        old.close()
