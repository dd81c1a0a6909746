"""Rows of a device go to pools and back without a wait on the event loop."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from attention_svc.engine import engine as engine_module
from attention_svc.engine.layer_stack import LayerStack
from attention_svc.sampling.sampler import sample
from moe_model.config import ModelConfig
from moe_model.kernels.cuda.model import Computed
from moe_model.maths.step_meta import StepMeta
from moe_model.reference import ReferenceModel
from moe_model.tiny import write_tiny
from moe_model.weights.checkpoint import Checkpoint
from tests.support.attention_svc import far_tensors
from tests.support.attention_svc.engine_harness import run_to_end
from tests.support.attention_svc.sequences import sequence

PROMPT = [5, 6, 7, 8] * 5


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    write_tiny(tmp_path, seed=4)
    return Checkpoint.open(tmp_path)


def long_steps(stack: LayerStack) -> None:
    """As of a device where every step is long."""
    stack._on_cpu = False
    stack._steps = far_tensors.FarSteps(stack._steps, ready=True)
    stack._inline_rows = stack._logits_inline_rows = 0


def unready_steps(stack: LayerStack) -> None:
    """As of a device where every step is short, once what it needs is made."""
    stack._on_cpu = False
    stack._steps = far_tensors.FarSteps(stack._steps, ready=False)


@pytest.mark.parametrize("far_stack", [long_steps, unready_steps])
async def test_whoever_waits_for_a_device_is_not_the_event_loop(
    checkpoint: Checkpoint,
    far_stack: Callable[[LayerStack], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    far_tensors.USES.clear()
    samplers = set()

    def spy(logits_BV: torch.Tensor, sequences: Sequence, **given: object) -> list:
        samplers.add(threading.current_thread().name)
        return sample(logits_BV.as_subclass(torch.Tensor), sequences, **given)

    monkeypatch.setattr(engine_module, "sample", spy)
    ours = [sequence(PROMPT[i:], max_tokens=6, prompt_logprobs=not i) for i in range(3)]
    await run_to_end(checkpoint, ours, over_grpc=True, max_batch_tokens=24, prepare=far_stack)
    reference = ReferenceModel(checkpoint)
    for one in ours:
        assert one.output_ids == reference.greedy(one.prompt_ids, 6, frozenset({2}))
    here = threading.current_thread().name
    assert "copy_" in {name for name, _ in far_tensors.USES}
    assert [name for name, thread in far_tensors.USES if thread == here] == []
    assert here not in samplers


class OneGraph:
    """Whole steps of which each size is made at its first step; their tokens are all 7."""

    def __init__(self, config: ModelConfig):
        self._config, self._made = config, set[int]()
        self._asked: np.ndarray | None = None
        self.threads: list[tuple[int, str]] = []
        """(rows, thread) of each start."""

    def is_short(self, meta: StepMeta, controls: np.ndarray | None = None) -> bool:
        self._asked = controls
        return meta.num_rows in self._made

    def start(self, meta: StepMeta, controls: np.ndarray | None = None) -> Computed:
        assert controls is self._asked, "a graph is made for so many controls"
        self.threads.append((meta.num_rows, threading.current_thread().name))
        self._made.add(meta.num_rows)
        config, rows, wanted = self._config, meta.num_rows, meta.logit_rows_B.shape[0]
        ids_LTK = torch.zeros((config.num_layers, rows, config.top_k), dtype=torch.int32)
        hidden_TD = torch.zeros((rows, config.hidden_size))
        logits_BV = torch.zeros((wanted, config.vocab_size))
        return Computed(hidden_TD, logits_BV, torch.full((wanted,), 7), ids_LTK, None)


async def test_a_step_that_has_something_to_make_first_does_not_hold_the_event_loop_up(
    checkpoint: Checkpoint,
) -> None:
    graphs = OneGraph(checkpoint.config)

    def prepare(stack: LayerStack) -> None:
        stack._whole, stack.picks = graphs, True

    ours = sequence(PROMPT, max_tokens=3, temperature=1.0, top_k=4)
    await run_to_end(checkpoint, [ours], prepare=prepare)
    assert ours.output_ids == [7, 7, 7]
    here = threading.current_thread().name
    assert [(rows, thread == here) for rows, thread in graphs.threads] == [
        (20, False), (1, False), (1, True)
    ]  # fmt: skip
