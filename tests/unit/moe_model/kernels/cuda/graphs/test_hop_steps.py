"""Steps whose experts are elsewhere: equal bits by graph and kernel by kernel, filled up or not."""

import numpy as np
import pytest
import torch
from torch import Tensor

from moe_model.kernels.cuda.graphs.hop_steps import HopStep
from moe_model.kernels.cuda.step import CudaStep
from moe_model.maths.layer_steps import LayerSteps, Steps
from moe_model.maths.rope import rope_cos_sin
from moe_model.maths.step_meta import StepMeta
from moe_model.weights.checkpoint import Checkpoint
from tests.support.moe_model.cuda_parts import PROMPT, Parts, chunk_of, decode_of, write


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return write(tmp_path_factory.mktemp("tiny"))


def begin(parts: Parts, steps: Steps, meta: StepMeta) -> LayerSteps:
    device = parts.backend.device
    hidden_TD = parts.outer.embedding_VD[meta.token_ids_T.to(device)]
    cos_sin = rope_cos_sin(meta.positions_T.to(device), parts.outer.frequencies)
    return steps.begin(hidden_TD, *cos_sin, meta)


def run(parts: Parts, steps: Steps, meta: StepMeta) -> tuple[LayerSteps, Tensor, np.ndarray]:
    """Experts as a hop: rows are taken from where they are, and sums are brought back there."""
    device = parts.backend.device
    step = begin(parts, steps, meta)
    for layer_idx, experts in enumerate(parts.experts):
        sent = [rows.to(device) for rows in step.up_to_dispatch(layer_idx)]
        sums_TD = torch.empty(sent[0].shape, device=device)
        experts.routed_sums(*sent, sums_TD)
        step.combined_TD.copy_(sums_TD)
        step.from_combine()
    return step, step.hidden_TD.cpu().clone(), np.asarray(step.chosen()).copy()


def test_a_decoded_row_has_its_chunks_bits_in_every_step_of_its_shape(
    checkpoint: Checkpoint, device: torch.device
) -> None:
    parts = Parts.of(checkpoint, device)
    steps = parts.backend.steps(parts.layers, parts.cache, parts.attention)
    step, whole, chosen = run(parts, steps, chunk_of(0, PROMPT[:4], 0))
    assert list(steps.warm_up(2, 1)) == [2, 1]
    assert isinstance(step, CudaStep)
    assert steps.is_ready(chunk_of(0, PROMPT[:4], 0))
    for position in (2, 3):  # the first makes the graphs, the second replays them
        decode = decode_of(PROMPT[position : position + 1], position)
        assert steps.is_ready(decode) == (position == 3)
        step, alone, ids = run(parts, steps, decode)
        assert isinstance(step, HopStep)
        assert step.combined_TD.is_cpu
        assert torch.equal(alone, whole[position : position + 1])
        assert (ids == chosen[:, position : position + 1]).all()


@pytest.mark.slow  # in the interpreter
def test_rows_that_fill_a_graph_up_change_nobodys_bits(
    checkpoint: Checkpoint, device: torch.device
) -> None:
    parts = Parts.of(checkpoint, device)
    steps = parts.backend.steps(parts.layers, parts.cache, parts.attention)
    for sequence in range(3):
        _, whole, chosen = run(parts, steps, chunk_of(sequence, PROMPT[:3], 0))
    for _ in range(2):
        _, three, ids = run(parts, steps, decode_of(PROMPT[2:3] * 3, 2))
        assert torch.equal(three, whole[2:3].expand(3, -1))
        assert (ids == chosen[:, 2:3]).all()
