"""Traffic on a mesh that changes, and the map as a watcher sees it."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator

import grpc

from protos import router_pb2, router_pb2_grpc
from rpc.mesh.pieces import Pieces
from tests.support.attention_svc.long_requests import PROMPT
from tests.support.chaos.history import Ask, Verdict, check
from tests.support.chaos.streams import Load
from tests.support.mesh import Mesh

TOKENS = 60


ASK = Ask(prompt=tuple(PROMPT), max_tokens=TOKENS)


BUSY_S = 60.0
"""Bound of waits that take a second or two where nothing else runs."""


class Traffic(Load):
    """Sends requests one after the other until stopped; then each must be right."""

    def __init__(self, mesh: Mesh, expected: list[int]):
        super().__init__(mesh.attention.address, [ASK], 1)
        self._expected = expected

    @property
    def finished(self) -> int:
        return sum(one.finished for one in self.histories)

    def assert_right(self) -> None:
        verdict = sum((check(one, self._expected) for one in self.histories), Verdict())
        assert verdict.right, verdict.problems[:5]


class Map:
    """Every topology that the router publishes, from a stream of its own."""

    def __init__(self, router: str):
        self._channel = grpc.insecure_channel(router)
        first = router_pb2.WatchTopologyRequest(watcher_id="test")
        self._open = threading.Event()

        def requests() -> Iterator[router_pb2.WatchTopologyRequest]:
            yield first
            self._open.wait()

        self._call = router_pb2_grpc.RouterStub(self._channel).WatchTopology(requests())
        self.seen: list[router_pb2.Topology] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            for response in self._call:
                self.seen.append(response.topology)
        except grpc.RpcError:
            pass

    def until(self, holds: Callable[[router_pb2.Topology], bool]) -> router_pb2.Topology:
        deadline_s = time.monotonic() + BUSY_S
        while not (self.seen and holds(self.seen[-1])):
            assert time.monotonic() < deadline_s, self.seen[-1:]
            time.sleep(0.02)
        return self.seen[-1]

    def __enter__(self) -> "Map":
        return self

    def __exit__(self, *_: object) -> None:
        self._open.set()
        self._call.cancel()
        self._channel.close()


def pieces(entry: router_pb2.PoolEntry) -> int:
    return sum(run.count for layer in entry.pieces.layers for run in layer.ranges)


def holding(count: int) -> Callable[[router_pb2.Topology], bool]:
    """Exactly `count` pools, all with pieces, and nothing missing."""
    return lambda topology: (
        topology.uncovered_pieces == 0
        and len(topology.pools) == count
        and all(pieces(entry) for entry in topology.pools)
    )


def copies(topology: router_pb2.Topology) -> int:
    return sum(pieces(entry) for entry in topology.pools)


def gaps(topologies: list[router_pb2.Topology], num_pieces: int) -> list[router_pb2.Topology]:
    """Topologies, after the first complete one, that show no holder of some piece."""
    started = itertools.dropwhile(lambda topology: topology.uncovered_pieces, topologies)
    return [
        topology
        for topology in started
        if len(Pieces.union(held(entry, topology) for entry in topology.pools)) < num_pieces
    ]


def held(entry: router_pb2.PoolEntry, topology: router_pb2.Topology) -> Pieces:
    return Pieces.from_message(
        entry.pieces, num_layers=topology.num_layers, num_experts=topology.num_experts
    )
