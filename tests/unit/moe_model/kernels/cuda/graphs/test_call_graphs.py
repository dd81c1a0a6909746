"""Which call is replayed from which graph? With graphs that only count."""

import contextlib
import gc
import itertools
from collections.abc import Callable
from typing import ClassVar

import pytest
import torch

from moe_model.config import ModelConfig
from moe_model.kernels.cuda.experts import CudaExperts
from moe_model.kernels.cuda.graphs import call_graphs
from moe_model.kernels.cuda.graphs.call_graphs import CallGraphs
from tests.support.moe_model.toy_family import TOY_CONFIG, parse_config


class Stream:
    def __init__(self, device: torch.device):
        self.device = device

    def synchronize(self) -> None:
        pass


class Graph:
    alive = 0
    living: ClassVar[dict[object, int]] = {}
    pools_given_up: ClassVar[set[object]] = set()

    spoilt = False

    def __init__(self) -> None:
        self.replayed = 0
        Graph.alive += 1

    def __del__(self) -> None:
        Graph.alive -= 1
        Graph.living[self.pool] -= 1
        if not Graph.living[self.pool]:  # as torch's allocator has it
            Graph.pools_given_up.add(self.pool)

    def capture_begin(self, *, pool: object, **_: object) -> None:
        assert pool not in Graph.pools_given_up
        self.pool = pool
        Graph.living[pool] = Graph.living.get(pool, 0) + 1

    def capture_end(self) -> None:
        if self.spoilt:
            raise RuntimeError("operation failed due to a previous error during capture")

    def replay(self) -> None:
        self.replayed += 1


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> CallGraphs:
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    numbers = itertools.count()
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: next(numbers))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: Stream(torch.device("cuda:0")))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    Graph.living.clear()
    Graph.pools_given_up.clear()
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10**9, 10**9))
    monkeypatch.setattr(call_graphs, "MOST_GRAPHS", 3)
    return CallGraphs(torch.device("cuda:0"))


@pytest.fixture
def experts() -> Callable[[], CudaExperts]:
    config: ModelConfig = parse_config(TOY_CONFIG)
    return lambda: CudaExperts(1, config, "bf16", torch.device("cpu"))


def launches(graphs: CallGraphs, held: CudaExperts, num_rows: int) -> int:
    """0: the call was replayed; 2: computed, and captured."""
    count = 0

    def launch() -> None:
        nonlocal count
        count += 1

    graphs.run(held, num_rows, launch)
    return count


def test_each_layer_and_number_of_rows_has_a_graph(
    graphs: CallGraphs, experts: Callable[[], CudaExperts]
) -> None:
    one, other = experts(), experts()
    assert [launches(graphs, *key) for key in ((one, 1), (one, 2), (other, 1))] == [2, 2, 2]
    assert [launches(graphs, *key) for key in ((one, 1), (one, 2), (other, 1))] == [0, 0, 0]


def test_graphs_are_bounded_and_the_one_used_longest_ago_goes(
    graphs: CallGraphs, experts: Callable[[], CudaExperts]
) -> None:
    held, before = experts(), Graph.alive
    for num_rows in (1, 2, 4, 1, 8):
        launches(graphs, held, num_rows)
    assert Graph.alive - before == 3
    assert [launches(graphs, held, num_rows) for num_rows in (1, 4, 8)] == [0, 0, 0]
    assert launches(graphs, held, 2) == 2


def test_experts_that_are_given_up_take_their_graphs_along(
    graphs: CallGraphs, experts: Callable[[], CudaExperts]
) -> None:
    """Their memory may be another layer's by now, and a new layer may have their address."""
    before = Graph.alive
    for _ in range(4):
        held = experts()
        assert launches(graphs, held, 1) == 2
        del held
    launches(graphs, experts(), 1)
    assert Graph.alive - before <= 2


def test_a_failed_capture_leaves_no_graph(
    graphs: CallGraphs, experts: Callable[[], CudaExperts]
) -> None:
    held, calls = experts(), []

    def launch() -> None:
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("made up by a test")

    with pytest.raises(RuntimeError, match="made up"):
        graphs.run(held, 1, launch)
    assert launches(graphs, held, 1) == 2


def test_memory_whose_graphs_are_all_gone_is_not_used_again(
    graphs: CallGraphs, experts: Callable[[], CudaExperts]
) -> None:
    for _ in range(3):
        held = experts()
        assert launches(graphs, held, 1) == 2
        del held
        gc.collect()


def test_the_first_failure_of_a_capture_is_the_one_that_is_told(
    graphs: CallGraphs, experts: Callable[[], CudaExperts], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def launch() -> None:
        calls.append(1)
        if len(calls) == 2:
            monkeypatch.setattr(Graph, "spoilt", True)
            raise RuntimeError("made up by a test")

    with pytest.raises(RuntimeError, match="made up"):
        graphs.run(experts(), 1, launch)


def test_without_memory_for_a_graph_calls_run_without_one(
    graphs: CallGraphs,
    experts: Callable[[], CudaExperts],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    held = experts()
    assert launches(graphs, held, 1) == 2
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10**8, 10**9))
    assert [launches(graphs, held, num_rows) for num_rows in (1, 2, 2, 4)] == [0, 1, 1, 1]
    assert caplog.text.count("1 graphs, and under 256 MB of the GPU's memory left") == 1


def test_what_graphs_take_is_counted(
    graphs: CallGraphs, experts: Callable[[], CudaExperts], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory of the device, and how much of it torch knows of: the rest is the driver's."""
    free, reserved = itertools.count(10**9, -(10**6)), itertools.count(0, 300_000)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (next(free), 10**9))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: next(reserved))
    for num_rows in (1, 2):
        monkeypatch.setattr(graphs, "_report", lambda _: None)
        launches(graphs, experts(), num_rows)
    assert str(graphs._captures) == "2 graphs took 2 MB, of which 1 MB are torch's"
    assert graphs._captures.pool_bytes == 600_000
