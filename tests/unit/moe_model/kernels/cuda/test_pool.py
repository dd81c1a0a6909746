"""A real pool whose calls go to a GPU answers, refuses and watches itself as on a CPU."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import torch
from torch import Tensor

from expert_svc.canary import WeightsChanged
from moe_model.kernels.cuda.backend import CudaBackend
from moe_model.kernels.cuda.graphs.calls import CudaCalls
from moe_model.maths.experts import run_experts
from protos import expert_pb2
from rpc.hop.tensor_codec import encode
from tests.support.expert_svc.execute_harness import (
    EXPECTED_FRAME_IDS,
    EXPECTED_FRAME_WEIGHTS,
    LAYERS,
    NOT_HELD,
    ROWS,
    Caller,
    Pool,
    calling,
    float32,
    hidden_rows,
    int32,
    rows_of,
    running_pool,
    weights_of,
)

NUM_ROWS = 2


def hidden(changed: dict[tuple[int, int], float] | None = None) -> Any:
    rows_ND = hidden_rows(NUM_ROWS).bfloat16()
    for place, value in (changed or {}).items():
        rows_ND[place] = value
    return encode(rows_ND)


def expected() -> Tensor:
    rows_ND = hidden_rows(NUM_ROWS).bfloat16().float()
    return run_experts(rows_ND, EXPECTED_FRAME_IDS, EXPECTED_FRAME_WEIGHTS, weights_of(0))


@contextlib.asynccontextmanager
async def on_gpu(device: torch.device) -> AsyncIterator[tuple[Pool, Caller]]:
    backend = CudaBackend(torch.bfloat16, device)
    async with running_pool(backend=backend, inline_rows=CudaCalls.inline_rows) as pool:
        assert isinstance(pool.store.calls, CudaCalls)
        async with calling(pool.address) as caller:
            yield pool, caller


async def test_calls_are_answered_summed_or_row_by_row(device: torch.device) -> None:
    async with on_gpu(device) as (_, caller):
        summed = rows_of(await caller.result_of(caller.call(hidden=hidden())))
        single = rows_of(await caller.result_of(caller.call(hidden=hidden(), combine=ROWS)))
    assert float((summed - expected()).norm() / expected().norm()) < 2e-2
    wide = single.float()
    assert torch.equal(
        summed, torch.stack([wide[0] + wide[1] + wide[2], wide[3] + wide[4] + wide[5]])
    )


async def test_what_is_not_held_or_no_number_is_refused_and_the_next_call_served(
    device: torch.device,
) -> None:
    async with on_gpu(device) as (_, caller):
        error = await caller.error_of(
            caller.call(
                hidden=hidden(),
                layer_idx=LAYERS - 1,
                row_splits=int32([0, 1, 2]),
                expert_ids=int32([0, NOT_HELD]),
                weights=float32([1, 1]),
            )
        )
        assert error.code == expert_pb2.ERROR_CODE_NOT_HOLDING
        assert error.not_holding.expert_id == NOT_HELD
        broken = hidden({(1, 3): float("nan")})
        error = await caller.error_of(caller.call(hidden=broken))
        assert error.code == expert_pb2.ERROR_CODE_INVALID_ARGUMENT
        assert error.message == "hidden holds NaN or infinity"
        assert not (await caller.result_of(caller.call(hidden=hidden()))).overflowed


@pytest.mark.slow  # in the interpreter, which warns of what overflows
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
async def test_a_row_that_overflows_is_answered_as_such_and_the_other_rightly(
    device: torch.device,
) -> None:
    async with on_gpu(device) as (_, caller):
        sound = rows_of(await caller.result_of(caller.call(hidden=hidden())))
        result = await caller.result_of(caller.call(hidden=hidden({(1, 0): 1e30, (1, 1): 1e30})))
    assert result.overflowed
    assert torch.equal(rows_of(result)[0], sound[0])
    assert not rows_of(result)[1].isfinite().all()


async def test_an_expert_that_changes_in_memory_is_noticed(device: torch.device) -> None:
    async with on_gpu(device) as (pool, _):
        pieces = [(0, 1), (0, 2)]
        await pool.canary.try_now(pieces)
        await pool.canary.try_now(pieces)
        held = pool.store.layer(0)
        assert held is not None
        held.weights.move(2, held.weights, 1)
        with pytest.raises(WeightsChanged, match="layer 0 expert 2"):
            await pool.canary.try_now(pieces)
