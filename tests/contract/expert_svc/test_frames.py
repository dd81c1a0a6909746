"""Malformed Execute frames are answered as protos/expert.proto says, and hurt no other caller."""

import asyncio
import resource
import time
from typing import Any

import pytest
import torch

from protos import expert_pb2, tensor_pb2
from rpc.hop.tensor_codec import encode
from tests.support.expert_svc.execute_harness import (
    EXPERTS,
    LAYERS,
    MAX_ROWS,
    NOT_HELD,
    TOP_K,
    Caller,
    D,
    calling,
    execute_frame,
    expected_sums,
    float32,
    hidden_rows,
    int32,
    rows_of,
    running_pool,
    with_bystander,
)

INVALID = expert_pb2.ERROR_CODE_INVALID_ARGUMENT
NAN, INF = float("nan"), float("inf")


def poisoned(value: float, dtype: torch.dtype = torch.float32) -> tensor_pb2.Tensor:
    rows = hidden_rows(2).to(dtype)
    rows[1, 7] = value
    return encode(rows)


def tensor(shape: list[int], data: bytes, dtype: int = tensor_pb2.DTYPE_FLOAT32) -> Any:
    return tensor_pb2.Tensor(dtype=dtype, shape=shape, data=data)


FULL = encode(hidden_rows(2)).data
MALFORMED: dict[str, tuple[dict[str, Any], str]] = {
    "layer beyond the model": ({"layer_idx": LAYERS}, "layer_idx"),
    "layer 2^32-1": ({"layer_idx": 2**32 - 1}, "layer_idx"),
    "phase unspecified": ({"phase": 0}, "phase"),
    "phase unknown": ({"phase": 77}, "phase"),
    "combine unspecified": ({"combine": 0}, "combine"),
    "combine unknown": ({"combine": 3}, "combine"),
    "timeout 0": ({"timeout_ms": 0}, "timeout_ms"),
    "no hidden": ({"hidden": tensor_pb2.Tensor()}, "hidden.dtype"),
    "dtype unspecified": ({"hidden": tensor([2, D], FULL, 0)}, "hidden.dtype"),
    "dtype unknown": ({"hidden": tensor([2, D], FULL, 99)}, "hidden.dtype"),
    "dtype not accepted": ({"hidden": encode(hidden_rows(2).bfloat16())}, "hidden.dtype"),
    "rows 0": ({"hidden": tensor([0, D], b"")}, "hidden.shape"),
    "rows 2^31": ({"hidden": tensor([2**31, D], FULL)}, "hidden.data"),
    "width of another model": ({"hidden": tensor([2, D - 1], FULL)}, "hidden.shape"),
    "one dimension": ({"hidden": tensor([2 * D], FULL)}, "hidden.shape"),
    "three dimensions": ({"hidden": tensor([1, 2, D], FULL)}, "hidden.shape"),
    "no dimension": ({"hidden": tensor([], FULL)}, "hidden.shape"),
    "body one byte short": ({"hidden": tensor([2, D], FULL[:-1])}, "hidden.data"),
    "body one byte long": ({"hidden": tensor([2, D], FULL + b"\0")}, "hidden.data"),
    "body empty": ({"hidden": tensor([2, D], b"")}, "hidden.data"),
    "rows beyond max_rows": ({"hidden": encode(hidden_rows(MAX_ROWS + 1))}, "rows"),
    "NaN in hidden": ({"hidden": poisoned(NAN)}, "hidden"),
    "infinity in hidden": ({"hidden": poisoned(INF)}, "hidden"),
    "minus infinity in hidden": ({"hidden": poisoned(-INF)}, "hidden"),
    "splits missing": ({"row_splits": b""}, "row_splits"),
    "splits too short": ({"row_splits": int32([0, 6])}, "row_splits"),
    "splits too long": ({"row_splits": int32([0, 3, 6, 6])}, "row_splits"),
    "splits of odd bytes": ({"row_splits": int32([0, 3, 6])[:-1]}, "row_splits"),
    "splits do not start at 0": ({"row_splits": int32([1, 3, 6])}, "row_splits"),
    "splits descend": ({"row_splits": int32([0, 7, 6])}, "row_splits"),
    "splits negative": ({"row_splits": int32([0, -3, 6])}, "row_splits"),
    "splits end at 0": ({"row_splits": int32([0, 0, 0])}, "row_splits"),
    "splits end beyond K pairs a row": ({"row_splits": int32([0, 3, 7])}, "row_splits"),
    "splits end at 2^31-1": ({"row_splits": int32([0, 3, 2**31 - 1])}, "row_splits"),
    "splits end beyond the ids": ({"row_splits": int32([0, 3, 5])}, "expert_ids"),
    "ids missing": ({"expert_ids": b""}, "expert_ids"),
    "ids of odd bytes": ({"expert_ids": int32([0, 2, 5, 1, 2, 6])[:-2]}, "expert_ids"),
    "id negative": ({"expert_ids": int32([-1, 2, 5, 1, 2, 6])}, "expert_ids"),
    "id beyond the model": ({"expert_ids": int32([0, 2, 5, 1, 2, EXPERTS])}, "expert_ids"),
    "id 2^31-1": ({"expert_ids": int32([0, 2, 5, 1, 2, 2**31 - 1])}, "expert_ids"),
    "a pair twice": ({"expert_ids": int32([0, 2, 2, 1, 2, 6])}, "expert_ids"),
    "ids unsorted": ({"expert_ids": int32([0, 5, 2, 1, 2, 6])}, "expert_ids"),
    "weights missing": ({"weights": b""}, "weights"),
    "a weight too few": ({"weights": float32([1.0] * 5)}, "weights"),
    "a weight too many": ({"weights": float32([1.0] * 7)}, "weights"),
    "NaN in weights": ({"weights": float32([1, 1, 1, NAN, 1, 1])}, "weights"),
    "infinity in weights": ({"weights": float32([1, 1, 1, 1, 1, -INF])}, "weights"),
}


async def assert_refused(caller: Caller, frame: expert_pb2.Execute, field: str) -> None:
    error = await caller.error_of(frame)
    assert error.code == INVALID
    assert field in error.message
    assert len(error.message) < 500


async def test_every_malformed_frame_is_refused_by_name_and_both_streams_live_on():
    async with running_pool() as pool, with_bystander(pool) as (caller, bystander):
        for name, (changes, field) in MALFORMED.items():
            await assert_refused(caller, caller.call(**changes), field)
            result = await caller.result_of(caller.call())
            assert torch.equal(rows_of(result), expected_sums()), name
        await bystander.still_served()


async def test_nan_in_bfloat16_rows_is_refused():
    async with running_pool(dtype=torch.bfloat16) as pool, calling(pool.address) as caller:
        for value in (NAN, INF):
            await assert_refused(
                caller, caller.call(hidden=poisoned(value, torch.bfloat16)), "hidden"
            )


async def test_large_finite_rows_whose_sum_overflows_are_no_error_of_the_caller():
    rows = torch.full((2, D), 3e38)
    async with running_pool() as pool, calling(pool.address) as caller:
        response = await caller.exchange(caller.call(hidden=encode(rows)))
        assert response.WhichOneof("frame") == "result"


@pytest.mark.parametrize("num_rows", [4, 32])
async def test_splits_whose_differences_wrap_around_allocate_nothing(num_rows: int):
    # In 32 bits every difference looks positive; repeating rows by them would take 34 GB.
    splits = [0, 2**31 - 1, -(2**31) + 1, 0] + [6] * (num_rows - 3)
    async with running_pool() as pool, with_bystander(pool) as (caller, bystander):
        before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        frame = caller.call(hidden=encode(hidden_rows(num_rows)), row_splits=int32(splits))
        await assert_refused(caller, frame, "row_splits")
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 100_000
        await bystander.still_served()


async def test_a_shape_with_a_million_dimensions_gets_a_short_answer():
    shape = [2**32 - 1] * 1_000_000
    async with running_pool() as pool, with_bystander(pool) as (caller, bystander):
        await assert_refused(caller, caller.call(hidden=tensor(shape, FULL)), "hidden.shape")
        await bystander.still_served()


async def test_a_row_may_have_no_pair_here_and_gets_zeros():
    async with running_pool() as pool, calling(pool.address) as caller:
        result = await caller.result_of(
            caller.call(
                row_splits=int32([0, 0, 3]),
                expert_ids=int32([1, 2, 6]),
                weights=float32([0.125, 0.5, 0.375]),
            )
        )
        rows = rows_of(result)
        assert torch.equal(rows[0], torch.zeros(D))
        torch.testing.assert_close(rows[1], expected_sums()[1])


async def test_a_piece_that_is_not_held_is_named():
    ids = int32([0, 2, 5, 1, 2, NOT_HELD])
    async with running_pool() as pool, with_bystander(pool) as (caller, bystander):
        error = await caller.error_of(caller.call(layer_idx=LAYERS - 1, expert_ids=ids))
        assert error.code == expert_pb2.ERROR_CODE_NOT_HOLDING
        assert (error.not_holding.layer_idx, error.not_holding.expert_id) == (LAYERS - 1, NOT_HELD)
        result = await caller.result_of(caller.call(layer_idx=LAYERS - 1))
        assert torch.equal(rows_of(result), expected_sums(LAYERS - 1))
        assert (await caller.result_of(caller.call(expert_ids=ids))).call_id  # layer 0 holds it
        await bystander.still_served()


@pytest.mark.parametrize("call_id", [0, 5])
async def test_an_unusable_call_id_ends_that_stream_only(call_id: int):
    """0, or one still in flight: an answer could not be matched to its call."""
    started = asyncio.Event()

    def slow(call: Any) -> torch.Tensor:
        started.set()
        time.sleep(0.3)
        return torch.zeros(call.num_rows, D)

    async with running_pool(compute=slow, inline_rows=0) as pool:
        async with calling(pool.address) as other, calling(pool.address) as caller:
            await caller.send(execute=execute_frame(call_id=5))
            await caller.send(execute=execute_frame(call_id=call_id))
            code, details = await caller.ended()
            assert code.name == "INVALID_ARGUMENT"
            assert "call_id" in details
            assert (await other.result_of(other.call())).call_id


async def test_a_call_id_may_come_again_once_answered():
    async with running_pool() as pool, calling(pool.address) as caller:
        for _ in range(3):
            await caller.result_of(execute_frame(call_id=9))


async def test_top_k_pairs_a_row_is_the_most():
    ids = list(range(TOP_K + 1))
    frame = {
        "hidden": encode(hidden_rows(1)),
        "row_splits": int32([0, TOP_K + 1]),
        "expert_ids": int32(ids),
        "weights": float32([1.0] * len(ids)),
    }
    async with running_pool() as pool, calling(pool.address) as caller:
        await assert_refused(caller, caller.call(**frame), "row_splits")
