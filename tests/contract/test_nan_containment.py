"""A sequence whose numbers go bad fails alone; its neighbours in the batch never notice."""

import dataclasses
from pathlib import Path

import pytest

from attention_svc.layer_stack import LayerStack
from attention_svc.sequence import Sequence
from minimax_m2.checkpoint import Checkpoint
from minimax_m2.reference import ReferenceModel
from minimax_m2.tiny import write_tiny
from tests.engine_harness import GREEDY, run_to_end

POISON = 200


def sequence(prompt: list[int]) -> Sequence:
    params = dataclasses.replace(GREEDY, max_tokens=24)
    return Sequence(
        request_id="t", prompt_ids=prompt, output_ids=[], params=params, stop_ids=frozenset({2})
    )


def poison(stack: LayerStack) -> None:
    stack._embedding_VD[POISON] = float("nan")


@pytest.mark.parametrize("over_grpc", [False, True], ids=["in_process", "grpc"])
async def test_nan_sequence_fails_alone_and_leaves_nothing_behind(
    tmp_path: Path, over_grpc: bool
) -> None:
    write_tiny(tmp_path, seed=4)
    checkpoint = Checkpoint.open(tmp_path)
    reference = ReferenceModel(checkpoint)
    prompts = [[5 + i, 6, 7, 8, 9] for i in range(6)]
    # Interleaved, so that healthy sequences share steps with sick ones and reuse their blocks.
    healthy = [sequence(prompt) for prompt in prompts]
    sick = [sequence([10 + i, POISON, *range(20, 37 + i)]) for i in range(6)]
    everyone = [s for pair in zip(sick, healthy, strict=True) for s in pair]
    await run_to_end(
        checkpoint,
        everyone,
        over_grpc=over_grpc,
        num_blocks=12,
        max_batch_tokens=24,
        prepare=poison,
    )
    for served, prompt in zip(healthy, prompts, strict=True):
        assert served.output_ids == reference.greedy(prompt, 24, frozenset({2}))
    for failed in sick:
        _, outcome = await failed.outbox.take()
        assert outcome is not None
        assert outcome.reason == "ERROR"
        assert "NaN" in outcome.error
        assert failed.output_ids == []
