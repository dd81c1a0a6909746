"""A sequence whose numbers become NaN fails alone; its neighbours in the batch are unaffected."""

import dataclasses
from pathlib import Path

import pytest
from torch import Tensor

from attention_svc.engine.layer_stack import LayerStack
from attention_svc.experts.over_grpc import GrpcTransport
from attention_svc.experts.transport import ExpertTransport
from attention_svc.sequence.sequence import Sequence
from moe_model.maths.layer_steps import LayerSteps, PlainStep
from moe_model.maths.step_meta import StepMeta
from moe_model.reference import ReferenceModel
from moe_model.tiny import write_tiny
from moe_model.weights.checkpoint import Checkpoint
from tests.support.attention_svc.engine_harness import GREEDY, run_to_end

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
    # Interleaved, so that good sequences share steps with bad ones and reuse their blocks.
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


async def test_a_shared_prefix_survives_the_nan_that_follows_it_in_one_sequence(
    tmp_path: Path,
) -> None:
    """Chunks of 24 rows: the bad sequences fail in the middle of their prompts, on either side of
    a block that others find in the cache. What they stored from the NaN on is never reused."""
    write_tiny(tmp_path, seed=4)
    checkpoint = Checkpoint.open(tmp_path)
    prefix = [5, 6, 7, 8] * 9
    sick = [sequence([*prefix[: 30 + i], POISON, *range(20, 60)]) for i in range(0, 8, 2)]
    healthy = [sequence([*prefix[: 33 + i], 9]) for i in range(4)]
    everyone = [s for pair in zip(sick, healthy, strict=True) for s in pair]
    await run_to_end(checkpoint, everyone, num_blocks=14, max_batch_tokens=24, prepare=poison)
    reference = ReferenceModel(checkpoint)
    for served in healthy:
        assert served.output_ids == reference.greedy(served.prompt_ids, 24, frozenset({2}))
    assert sum(served.num_cached or 0 for served in healthy) > 0
    for failed in sick:
        _, outcome = await failed.outbox.take()
        assert outcome is not None
        assert "NaN" in outcome.error
        assert failed.output_ids == []


async def test_numbers_that_were_bad_once_are_not_kept(tmp_path: Path) -> None:
    """A pool fails in the first chunk of a prompt: the request fails, a repeated one does not."""
    write_tiny(tmp_path, seed=4)
    checkpoint = Checkpoint.open(tmp_path)
    first, again = (sequence([5, 6, 7, 8] * 12) for _ in range(2))

    def spoil_once(stack: LayerStack) -> None:
        begin = stack._begin

        def begin_spoiled(meta: StepMeta) -> LayerSteps:
            stack._begin = begin
            step = begin(meta)
            up_to_dispatch = step.up_to_dispatch
            assert isinstance(step, PlainStep)

            def spoiled(layer_idx: int) -> tuple[Tensor, Tensor, Tensor]:
                step.up_to_dispatch = up_to_dispatch
                dispatched = up_to_dispatch(layer_idx)
                step._residual_TD = step._residual_TD.clone()
                step._residual_TD[3] = float("nan")
                return dispatched

            step.up_to_dispatch = spoiled
            return step

        stack._begin = begin_spoiled

    await run_to_end(checkpoint, [first, again], max_batch_tokens=24, prepare=spoil_once)
    _, outcome = await first.outbox.take()
    assert outcome is not None
    assert "NaN" in outcome.error
    assert again.output_ids == ReferenceModel(checkpoint).greedy(
        again.prompt_ids, 24, frozenset({2})
    )


@pytest.mark.parametrize("over_grpc", [False, True], ids=["in_process", "grpc"])
@pytest.mark.parametrize("how", ["overflows", "loses_its_weights", "is_infinite"])
async def test_a_row_that_goes_bad_on_its_way_through_sound_experts_fails_its_sequence_alone(
    tmp_path: Path, over_grpc: bool, how: str
) -> None:
    """The same by both transports, and no pool is suspected of it."""
    write_tiny(tmp_path, seed=4)
    checkpoint = Checkpoint.open(tmp_path)
    sick = [sequence([10 + i, POISON, *range(20, 30 + i)]) for i in range(3)]
    healthy = [sequence([5 + i, 6, 7, 8, 9]) for i in range(3)]
    transports: list[ExpertTransport] = []

    def spoil(stack: LayerStack) -> None:
        transports.append(stack.transport)
        begin = stack._begin

        def begin_spoiled(meta: StepMeta) -> LayerSteps:
            step = begin(meta)
            up_to_dispatch = step.up_to_dispatch
            marked_T = meta.token_ids_T == POISON

            def spoiled(layer_idx: int) -> tuple[Tensor, Tensor, Tensor]:
                dispatch_TD, ids_TK, weights_TK = (it.clone() for it in up_to_dispatch(layer_idx))
                if layer_idx == 0 and how == "loses_its_weights":
                    weights_TK[marked_T] = float("nan")
                elif layer_idx == 0:
                    dispatch_TD[marked_T] = 1e30 if how == "overflows" else float("inf")
                return dispatch_TD, ids_TK, weights_TK

            step.up_to_dispatch = spoiled
            return step

        stack._begin = begin_spoiled

    everyone = [s for pair in zip(sick, healthy, strict=True) for s in pair]
    await run_to_end(checkpoint, everyone, over_grpc=over_grpc, prepare=spoil)
    reference = ReferenceModel(checkpoint)
    for served in healthy:
        assert served.output_ids == reference.greedy(served.prompt_ids, 24, frozenset({2}))
    for failed in sick:
        _, outcome = await failed.outbox.take()
        assert outcome is not None
        assert (outcome.reason, outcome.retryable) == ("ERROR", False)
        assert "NaN" in outcome.error
        assert failed.output_ids == []
    (transport,) = transports
    if isinstance(transport, GrpcTransport):
        registry = transport.context.metrics.registry
        kinds = ("corrupt", "error", "timeout", "broken")
        name = "expertmesh_expert_call_failures_total"
        found = [registry.get_sample_value(name, {"pool": "p", "kind": kind}) for kind in kinds]
        assert found == [None] * len(kinds)
        assert not transport.context.outages.open
