"""The bounds of moe_model/workspace.py against what steps and calls allocate, kernels left out."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from attention_svc.kv.side_stream import BUFFER_BYTES
from moe_model import workspace
from moe_model.kernels.cuda import attention, codes, experts, linear
from moe_model.kernels.cuda import rows as row_kernels
from moe_model.kernels.cuda.graphs import call_graphs, hop_steps
from moe_model.kernels.cuda.graphs import decode as graphs
from moe_model.kernels.cuda.graphs.calls import CudaCalls
from moe_model.kernels.cuda.graphs.step_numbers import MOST_ITEMS, ROWS, shape_of
from moe_model.kernels.cuda.graphs.tile_numbers import TILED_ROWS
from moe_model.kernels.cuda.paged import SPAN
from moe_model.maths.expert_calls import CallRows
from moe_model.maths.step_meta import ChunkMeta, StepMeta
from moe_model.weights.checkpoint import Checkpoint
from moe_model.workspace import Steps, attention_workspace, pool_workspace
from tests.support.moe_model.cuda_parts import Parts, write
from tests.support.moe_model.live_memory import LiveMemory

SIZES = {
    "hidden_size": 256,
    "intermediate_size": 64,
    "num_attention_heads": 8,
    "head_dim": 32,
    "vocab_size": 512,
}
LONGEST = 4096
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return write(tmp_path_factory.mktemp("model"), **SIZES)


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of kernels, which are not run: what they would compute is undefined."""
    found: list[str] = []

    def note(kernel: Any, *_: Any, **__: Any) -> None:
        found.append(kernel.__name__)

    for module in (attention, experts, linear, row_kernels):
        monkeypatch.setattr(module, "launch", note)
    return found


@pytest.fixture
def parts(checkpoint: Checkpoint) -> Parts:
    return Parts.of(checkpoint, CPU)


def decode_of(num_rows: int, length: int = LONGEST) -> StepMeta:
    nothing = torch.zeros(num_rows, dtype=torch.int64)
    return StepMeta(
        token_ids_T=nothing,
        positions_T=nothing + length - 1,
        slot_mapping_T=nothing,
        num_decode=num_rows,
        decode_tables_BW=torch.zeros((num_rows, 1), dtype=torch.int64),
        decode_lens_B=nothing + length,
        chunks=(),
        logit_rows_B=torch.arange(num_rows),
        open_rows_C=nothing[:0],
        is_decode=True,
    )


def chunk_of(num_rows: int, num_logits: int) -> StepMeta:
    rows = torch.zeros(num_rows, dtype=torch.int64)
    chunk = ChunkMeta(
        rows=slice(0, num_rows), positions_T=rows, block_table_W=rows[:1], num_cached=num_rows
    )
    return StepMeta(
        token_ids_T=rows,
        positions_T=rows,
        slot_mapping_T=rows,
        num_decode=0,
        decode_tables_BW=rows[:0].view(0, 0),
        decode_lens_B=rows[:0],
        chunks=(chunk,),
        logit_rows_B=torch.arange(num_logits),
        open_rows_C=rows[:0],
        is_decode=False,
    )


def steps_of(num_rows: int, num_decode: int) -> Steps:
    return Steps(rows=num_rows, decode_rows=num_decode, positions=LONGEST)


@pytest.mark.parametrize(
    ("meta", "largest"),
    [
        (chunk_of(512, 16), steps_of(512, 16)),
        (chunk_of(48, 1), steps_of(48, 1)),
        (decode_of(1), steps_of(1, 1)),
        (decode_of(64), steps_of(64, 64)),
    ],
)
def test_a_whole_step_takes_no_more_than_was_counted_and_not_much_less(
    parts: Parts, launches: list[str], meta: StepMeta, largest: Steps
) -> None:
    counted = attention_workspace(parts.checkpoint.config, largest, has_experts=True)
    steps = parts.whole_steps()
    with LiveMemory() as live:
        steps.start(meta, None).wait()
    logits = 4 * parts.checkpoint.config.vocab_size * meta.logit_rows_B.shape[0]
    partials = counted.attention if meta.is_decode else 0
    assert launches
    assert live.most_bytes <= counted.rows + partials + logits
    assert live.most_bytes > 0.4 * (counted.rows + partials)


@pytest.mark.parametrize("num_rows", [1, 48, 512])
def test_rows_between_two_hops_take_no_more_than_was_counted(
    parts: Parts, launches: list[str], num_rows: int
) -> None:
    config = parts.checkpoint.config
    counted = attention_workspace(config, steps_of(num_rows, 1), has_experts=False)
    steps = parts.backend.steps(parts.layers, parts.cache, parts.attention)
    with LiveMemory() as live:
        hidden_TD = torch.zeros((num_rows, config.hidden_size), dtype=torch.bfloat16)
        angles_T = torch.zeros((num_rows, config.rotary_dim // 2))
        step = steps.begin(hidden_TD, angles_T, angles_T.clone(), chunk_of(num_rows, 1))
        for layer_idx in range(config.num_layers):
            step.up_to_dispatch(layer_idx)
            step.combined_TD.zero_()
            step.from_combine()
    assert live.most_bytes <= counted.rows
    assert live.most_bytes > 0.4 * counted.rows


@pytest.mark.parametrize("num_rows", [1, 128, 1000])
def test_a_call_takes_no_more_than_was_counted(
    parts: Parts, launches: list[str], num_rows: int
) -> None:
    config = parts.checkpoint.config
    num_pairs = num_rows * config.top_k
    rows = CallRows(
        hidden_ND=torch.zeros((num_rows, config.hidden_size), dtype=torch.bfloat16),
        row_of_pair_M=torch.arange(num_rows).repeat_interleave(config.top_k),
        expert_ids_M=torch.zeros(num_pairs, dtype=torch.int64),
        weights_M=torch.ones(num_pairs),
    )
    on_host = 2 * num_rows * 4 * config.hidden_size + 2**18
    with LiveMemory() as live:
        calls = CudaCalls(config, CPU)
        calls.run(parts.experts[0], rows, np.zeros(num_pairs, np.int64), per_pair=False)
    counted = pool_workspace(config, most_rows=max(128, num_rows))
    assert live.most_bytes <= counted.rows + on_host


def test_a_layer_has_no_more_kernels_than_are_counted_in_graphs(
    parts: Parts, launches: list[str]
) -> None:
    config = parts.checkpoint.config
    parts.whole_steps().start(decode_of(64), None)
    assert len(launches) / config.num_layers <= workspace.LAYER_KERNELS
    assert len(launches) / config.num_layers > workspace.LAYER_KERNELS - 5
    launches.clear()
    held = parts.experts[0]
    pairs = torch.zeros(200, dtype=torch.int64)
    held.sums(torch.zeros((100, config.hidden_size)), pairs, pairs, pairs.float())
    assert len(launches) + 2 <= workspace.CALL_KERNELS, "and a copy each way"


def asked_shapes(most_rows: int, longest: int, growth: int) -> Iterator[tuple[int, int]]:
    for num_rows in range(1, most_rows + 1):
        for length in range(1, longest + 1, SPAN.value // 2):
            shape = shape_of(decode_of(num_rows, length), growth=growth)
            if shape is not None:
                yield shape.rows, shape.items


@pytest.mark.parametrize("growth", [2, hop_steps.GROWTH])
@pytest.mark.parametrize(("most_rows", "longest"), [(1, 300), (5, 5000), (20, 2000)])
def test_graphs_are_counted_for_every_shape_that_steps_ask_for(
    most_rows: int, longest: int, growth: int
) -> None:
    counted = workspace.graph_shapes(most_rows, longest, growth=growth)
    asked = set(asked_shapes(most_rows, longest, growth))
    assert asked <= counted
    assert len(counted) <= 1.5 * len(asked) + 4


def test_the_numbers_are_the_kernels() -> None:
    assert workspace.GRAPH_ROWS == ROWS
    assert workspace.TILED_ROWS == TILED_ROWS
    assert (SPAN.value, MOST_ITEMS) == (workspace.SPAN, workspace.MOST_ITEMS)
    assert workspace.MOST_GRAPHS == graphs.MOST_GRAPHS
    assert workspace.MOST_HOP_SHAPES == hop_steps.MOST_SHAPES
    assert workspace.HOP_GROWTH == hop_steps.GROWTH
    assert workspace.MOST_CALL_GRAPHS == call_graphs.MOST_GRAPHS
    assert (workspace.GROUP, workspace.SEGMENT) == (codes.GROUP, linear._SEGMENT)
    assert workspace.FEW_ROWS == linear._FEW_ROWS
    assert workspace.HOST_BLOCKS_BYTES == 3 * BUFFER_BYTES
