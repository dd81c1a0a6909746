"""Rows of a device go to pools and back without a wait on the event loop."""

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from attention_svc.engine import engine as engine_module
from attention_svc.engine.layer_stack import LayerStack
from attention_svc.sampling.sampler import sample
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


def far_stack(stack: LayerStack) -> None:
    """As of a device where every step is long."""
    stack._on_cpu = False
    stack._steps = far_tensors.FarSteps(stack._steps)
    stack._inline_rows = stack._logits_inline_rows = 0
    far_tensors.USES.clear()


async def test_whoever_waits_for_a_device_is_not_the_event_loop(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
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
