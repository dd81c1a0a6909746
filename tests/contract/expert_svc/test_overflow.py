"""NaN in an answer: an overflow of the call when its experts are sound, else the pool ends."""

import asyncio
from typing import Any

import pytest
import torch
from torch import Tensor

from expert_svc.canary import WeightsChanged
from moe_model.maths.expert_calls import ExpertCalls
from moe_model.maths.experts import run_experts
from protos import expert_pb2
from rpc.hop.tensor_codec import encode
from tests.support.expert_svc.execute_harness import (
    EXPERTS,
    NOT_HELD,
    PREFILL,
    ROWS,
    SUM,
    TOP_K,
    calling,
    float32,
    hidden_rows,
    int32,
    routed,
    rows_of,
    running_pool,
    weights_of,
)

TOO_LARGE = 1e30
"""Finite, but its gate times its up projection is not."""


def routed_call(hidden: Tensor, ids: Tensor, weights: Tensor, **changes: Any) -> dict[str, Any]:
    return {
        "hidden": encode(hidden),
        "row_splits": int32(range(0, ids.numel() + 1, TOP_K)),
        "expert_ids": int32(ids.flatten().tolist()),
        "weights": float32(weights.flatten().tolist()),
        **changes,
    }


@pytest.mark.parametrize("num_rows", [3, 40], ids=["inline", "queued"])
async def test_a_row_that_overflows_is_answered_as_such_and_the_others_rightly(num_rows: int):
    hidden, (ids, weights) = hidden_rows(num_rows), routed(num_rows)
    hidden[1] = TOO_LARGE
    async with running_pool() as pool, calling(pool.address) as caller:
        frame = caller.call(**routed_call(hidden, ids, weights, phase=PREFILL))
        result = await caller.result_of(frame)
        assert result.overflowed
        rows = rows_of(result)
        finite = rows.isfinite().all(dim=1)
        assert finite.tolist() == [row != 1 for row in range(num_rows)]
        expected = run_experts(hidden, ids, weights, weights_of(0))
        torch.testing.assert_close(rows[finite], expected[finite])
        assert not (await caller.result_of(caller.call())).overflowed, "it serves on"


class OneMemory:
    """Calls whose answers all lie in the same memory, as a GPU's do."""

    room = None

    def __init__(self, calls: ExpertCalls):
        self._calls = calls
        self._memory_ND = torch.empty((8, hidden_rows(1).shape[1]))

    def run(self, *given: Any, **flags: Any) -> Tensor:
        answer = self._calls.run(*given, **flags)
        return self._memory_ND[: len(answer)].copy_(answer)


async def test_an_answer_is_kept_while_its_experts_are_tried():
    hidden, (ids, weights) = hidden_rows(3), routed(3)
    hidden[1] = TOO_LARGE
    async with running_pool() as pool, calling(pool.address) as caller:
        pool.store.calls = OneMemory(pool.store.calls)
        result = await caller.result_of(caller.call(**routed_call(hidden, ids, weights)))
    assert result.overflowed
    expected = run_experts(hidden, ids, weights, weights_of(0))
    assert torch.equal(rows_of(result)[[0, 2]], expected[[0, 2]])
    assert not rows_of(result)[1].isfinite().all()


async def test_with_one_row_per_expert_only_the_experts_of_bad_rows_are_tried():
    hidden, (ids, weights) = hidden_rows(2), routed(2, experts=range(4))
    hidden[1] = TOO_LARGE
    tried: list[tuple[int, int]] = []

    async def note(pieces: Any) -> None:
        tried.extend(pieces)

    async with running_pool() as pool, calling(pool.address) as caller:
        pool.servicer._try_experts = note
        frame = caller.call(**routed_call(hidden, ids, weights, combine=ROWS))
        result = await caller.result_of(frame)
    assert result.overflowed
    assert tried == [(0, int(expert_id)) for expert_id in ids[1]]


@pytest.mark.parametrize("combine", [SUM, ROWS])
async def test_a_pool_with_damaged_weights_answers_no_call_with_them_and_ends(combine: Any):
    async with running_pool() as pool, calling(pool.address) as caller:
        running = asyncio.create_task(pool.canary.run())
        await pool.canary.try_now([(0, 2)])
        _spoil(pool.store.layer(0))
        await caller.send(execute=caller.call(combine=combine))
        async with asyncio.timeout(10):
            with pytest.raises(WeightsChanged, match=r"layer 0 expert \d+ answers .*NaN"):
                await running
        await caller.send(ping=expert_pb2.Ping(nonce=3))
        response = await caller.read()
        assert response.WhichOneof("frame") == "pong", "no answer to the call, not even an error"


def _spoil(held: Any) -> None:
    """Write NaN into the weights that this pool holds of the layer."""
    tensors = [it for it in vars(held.weights).values() if isinstance(it, Tensor)]
    assert tensors
    for tensor in tensors:
        if tensor.is_floating_point():
            tensor.fill_(float("nan"))


async def test_an_expert_that_was_unloaded_meanwhile_is_not_vouched_for():
    hidden = hidden_rows(1)
    hidden[0] = TOO_LARGE
    ids, weights = torch.tensor([[0, 1, 2]]), torch.ones(1, TOP_K)
    async with running_pool() as pool, calling(pool.address) as caller:
        try_experts = pool.servicer._try_experts

        async def unloaded_first(pieces: Any) -> None:
            pool.store.unload(pool.store.pieces)
            await try_experts(pieces)

        pool.servicer._try_experts = unloaded_first
        error = await caller.error_of(caller.call(**routed_call(hidden, ids, weights)))
    assert error.code == expert_pb2.ERROR_CODE_NOT_HOLDING
    assert NOT_HELD < EXPERTS
