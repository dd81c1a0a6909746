"""Who reaches which pool, as `expertmesh status` shows it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from rich.console import Console

from expertmesh.clients.reach import problems, reach_report, reach_table
from protos import attention_pb2, attention_pb2_grpc


class Fake(attention_pb2_grpc.AttentionServicer):
    def GetStatus(self, request: Any, context: Any) -> attention_pb2.GetStatusResponse:
        status = attention_pb2.GetStatusResponse(attention_id="attention-0", ready=True)
        status.pools.add(pool_id="a", address="h:1", reachable=True, network_ms=1.25)
        status.pools.add(pool_id="b", address="h:2", error="UNAVAILABLE: no route")
        return status


@pytest.fixture
def address() -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(1))
    attention_pb2_grpc.add_AttentionServicer_to_server(Fake(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(0)


def test_the_matrix_shows_who_reaches_whom_and_why_not(address: str) -> None:
    rows = reach_report([address, "127.0.0.1:1"])
    assert [row["answers"] for row in rows] == [True, False]
    table = reach_table(rows)
    console = Console(width=100)
    with console.capture() as captured:
        console.print(table)
    lines = [line.split() for line in captured.get().splitlines()]
    assert lines[1][:4] == ["attention-0", "1.2", "ms", "no"]
    assert lines[2] == ["127.0.0.1:1", "?", "?"]
    gone, cut = problems(rows)
    assert gone.startswith("127.0.0.1:1: unavailable")
    assert cut == "attention-0 cannot reach b at h:2: UNAVAILABLE: no route"


def test_nothing_to_show_is_no_table() -> None:
    assert reach_table(reach_report([])) is None
