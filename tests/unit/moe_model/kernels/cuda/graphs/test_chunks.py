"""Short steps with chunks: their graphs' bits, and when they are made."""

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from moe_model.kernels.cuda.graphs import chunks as chunk_graphs
from moe_model.kernels.cuda.graphs import tile_numbers as numbers
from moe_model.kernels.cuda.graphs.chunks import ChunkGraphs
from moe_model.kernels.cuda.graphs.tile_numbers import TiledShape
from moe_model.kernels.cuda.graphs.whole import CudaWholeSteps
from moe_model.weights.checkpoint import Checkpoint
from tests.support.moe_model.cuda_parts import PROMPT, Parts, chunk_of, decode_of, write

SMALL = TiledShape(rows=16, items=16)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return write(tmp_path_factory.mktemp("tiny"))


def graphs_of(steps: object) -> ChunkGraphs:
    assert isinstance(steps, CudaWholeSteps)
    return steps._chunks


@pytest.mark.slow  # in the interpreter
def test_a_filled_up_chunk_has_the_bits_of_kernels_launched_one_by_one(
    checkpoint: Checkpoint, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numbers, "tiled_shapes", lambda _: [SMALL])
    one, other = (Parts.of(checkpoint, device).whole_steps() for _ in range(2))
    expected = one.start(chunk_of(0, PROMPT, 0))
    expected.wait()
    whole = expected.hidden_TD.clone()
    for ids, start in ((PROMPT[:5], 0), (PROMPT[5:], 5)):
        found = graphs_of(other).run(chunk_of(0, ids, start))
        assert found is not None
        hidden_TD, ids_LTK = found
        if device.type == "cuda":
            torch.cuda.synchronize()
        rows = slice(start, start + len(ids))
        assert torch.equal(hidden_TD, whole[rows])
        assert np.array_equal(ids_LTK.numpy(), expected.chosen()[:, rows])


class Kept:
    """Captures whose graphs count how often they are replayed."""

    def __init__(self, full: bool = False):
        self.full, self.made, self.replayed = full, 0, 0

    def is_full(self) -> bool:
        return self.full

    def capture(self, work: Callable[[], object]) -> tuple[SimpleNamespace, object] | None:
        if self.full:
            return None
        self.made += 1
        return SimpleNamespace(replay=self.replay), work()

    def replay(self) -> None:
        self.replayed += 1


def kept(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, full: bool = False
) -> tuple[ChunkGraphs, Kept]:
    graphs, captures = (
        graphs_of(Parts.of(checkpoint, torch.device("cpu")).whole_steps()),
        Kept(full),
    )
    monkeypatch.setattr(graphs, "_captures", captures)

    def compute(shape: TiledShape) -> chunk_graphs.Layers:
        return torch.zeros((shape.rows, 8)), torch.zeros((2, shape.rows, 2))

    monkeypatch.setattr(graphs, "_compute", compute)
    return graphs, captures


def test_graphs_are_made_when_warming_up_and_only_replayed_by_steps(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs, captures = kept(checkpoint, monkeypatch)
    assert list(graphs.warm_up(60)) == [3, 2, 1]
    assert (captures.made, captures.replayed) == (3, 0)
    found = graphs.start(chunk_of(0, PROMPT, 0))
    assert found is not None
    assert (found[0].shape[0], found[1].shape) == (len(PROMPT), (2, len(PROMPT), 2))
    assert (captures.made, captures.replayed) == (3, 1)
    assert graphs.start(decode_of(PROMPT[:2], 6)) is None


def test_without_memory_for_graphs_a_chunk_is_computed_all_the_same(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs, captures = kept(checkpoint, monkeypatch, full=True)
    assert list(graphs.warm_up(16)) == [1]
    assert graphs.start(chunk_of(0, PROMPT, 0)) is not None
    assert not captures.made


def test_where_nothing_is_captured_chunks_are_launched_one_by_one(checkpoint: Checkpoint) -> None:
    graphs = graphs_of(Parts.of(checkpoint, torch.device("cpu")).whole_steps())
    assert graphs.start(chunk_of(0, PROMPT, 0)) is None
    assert not list(graphs.warm_up(256))
