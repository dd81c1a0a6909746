"""RecordRouting streams every step of the engine to a caller that may ask for it."""

import asyncio

import grpc
import numpy as np
import pytest

from attention_svc.activations import ActivationCounts
from attention_svc.engine import recording
from protos import attention_pb2
from tests.support.attention_svc.generate_harness import (
    WAIT_S,
    heard,
    request,
    running_service,
    stub_of,
    until,
)

ASK = attention_pb2.RecordRoutingRequest


async def test_a_recording_has_every_row_of_every_step():
    async with running_service() as service, stub_of(service) as stub:
        counts = service.activations
        call = stub.RecordRouting(ASK(max_steps=6), timeout=WAIT_S)
        await until(lambda: counts.listeners)
        before = counts.counts.copy()
        await heard(stub, request([3, 4, 5, 6], max_tokens=6))
        steps = [step async for step in call]
        assert [step.num_rows for step in steps] == [4, 1, 1, 1, 1, 1]
        assert [step.is_decode for step in steps] == [False] + [True] * 5
        routed = np.zeros_like(before)
        for step in steps:
            ids_TLK = np.frombuffer(step.expert_ids, "<i4")
            ids_TLK = ids_TLK.reshape(step.num_rows, before.shape[0], -1)
            for layer_idx in range(before.shape[0]):
                np.add.at(routed[layer_idx], ids_TLK[:, layer_idx].ravel(), 1)
        assert (counts.counts - before == routed).all()
        await until(lambda: not counts.listeners)


async def test_who_goes_away_is_no_longer_told_and_only_so_many_may_ask():
    async with running_service() as service, stub_of(service) as stub:
        counts = service.activations
        calls = [stub.RecordRouting(ASK(), timeout=WAIT_S) for _ in range(recording.MAX_RECORDERS)]
        await until(lambda: len(counts.listeners) == len(calls))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            [step async for step in stub.RecordRouting(ASK(), timeout=WAIT_S)]
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        for call in calls:
            call.cancel()
        await until(lambda: not counts.listeners)


async def test_a_slow_reader_is_told_how_many_steps_it_missed(monkeypatch):
    monkeypatch.setattr(recording, "MAX_WAITING_BYTES", 4 * 2 * 2)
    counts = ActivationCounts(2, 4)
    steps = recording.record(counts, 2)
    first = asyncio.ensure_future(anext(steps))
    await asyncio.sleep(0)
    for _ in range(3):
        counts.add_step([np.array([[0, 1]]), np.array([[2, 3]])], is_decode=True)
    assert (await first).lost_steps == 0
    counts.add_step([np.array([[0, 1]]), np.array([[2, 3]])], is_decode=True)
    assert (await anext(steps)).lost_steps == 2
    with pytest.raises(StopAsyncIteration):
        await anext(steps)
    assert not counts.listeners
