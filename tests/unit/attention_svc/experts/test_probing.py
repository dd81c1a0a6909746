"""Pieces that are answered again are noticed without a request, and only then."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import torch

from attention_svc.experts import probing
from attention_svc.experts.outages import GRACE_S, Outages
from attention_svc.experts.over_grpc import GrpcTransport
from attention_svc.experts.probing import Prober
from attention_svc.experts.transport import ExpertsUnavailable
from tests.support.attention_svc.expert_world import ALL, CODEC, D, World, result


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(probing, "PROBE_S", 0.01)
    world = World(a=ALL)
    task = asyncio.create_task(Prober(world.context, D, torch.float32).run())
    yield world
    task.cancel()


async def until_open(world: World, is_open: bool) -> None:
    async with asyncio.timeout(10):
        while bool(world.context.outages.open) is not is_open:
            await asyncio.sleep(0.005)


async def fail(world: World, what: str) -> None:
    world.links["a"].script = [what] * 10_000
    call, wanted = world.call(timeout_s=0.05)
    with pytest.raises(ExpertsUnavailable):
        await result(call, wanted)


@pytest.mark.parametrize("what", ["corrupt", "error", "overloaded", "break"])
async def test_pieces_that_are_answered_again_are_noticed(world: World, what: str):
    await fail(world, what)
    await asyncio.sleep(0.1)
    assert world.context.outages.open, "garbage is no answer, whoever asks"
    world.links["a"].script = []
    world.links["a"].back()
    await until_open(world, False)
    assert not world.context.outages.waiting


async def test_nobody_is_asked_while_all_is_well_or_a_step_asks(world: World):
    link = world.links["a"]
    await asyncio.sleep(0.05)
    assert not link.calls
    world.context.outages.note(0, [1], 0.0, "test")
    world.context.outages.waiting = 1
    await asyncio.sleep(0.05)
    assert not link.calls
    world.context.outages.waiting = 0
    await until_open(world, False)


async def test_a_piece_that_answers_only_garbage_makes_the_transport_unready():
    world = World(a=ALL)
    transport = GrpcTransport(world.pools, world.metrics, CODEC)
    assert transport.ready() == (True, "")
    now_s = asyncio.get_running_loop().time()
    transport.context.outages.note(0, [3], now_s, "pool a: rows holds NaN")
    assert transport.ready() == (True, ""), "a call that is sent again is no outage yet"
    transport.context.outages.over(0, [3])
    transport.context.outages.note(0, [3], now_s - GRACE_S, "pool a: rows holds NaN")
    ready, reason = transport.ready()
    assert not ready
    assert "layer 0" in reason
    assert "pool a" in reason


def test_an_outage_begins_with_its_first_failure_and_ends_with_an_answer():
    outages = Outages()
    outages.note(2, [1, 4], 10.0, "first")
    outages.note(2, [4, 5], 20.0, "second")
    assert outages.since_s(2, [4], 99.0) == 10.0
    assert outages.since_s(2, [5], 99.0) == 20.0
    assert outages.since_s(1, [4], 99.0) == 99.0
    assert outages.reason(10.0) == ""
    assert "layer 2: first" in outages.reason(11.0)
    assert outages.reason(1000.0) == outages.reason(11.0), "the same words: one line in the log"
    outages.over(2, [1, 4])
    assert outages.by_layer() == {2: [5]}


async def test_a_bug_in_a_probe_is_told_of_once_and_the_next_probe_comes(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    probes, call = 0, probing.ExpertCall

    def broken(*args: Any, **options: Any) -> Any:
        nonlocal probes
        probes += 1
        if probes < 20:
            raise TypeError(f"probe {probes}")
        return call(*args, **options)

    monkeypatch.setattr(probing, "ExpertCall", broken)
    world.context.outages.note(0, [1], 0.0, "test")
    await until_open(world, False)
    assert probes >= 20
    assert len([record for record in caplog.records if record.exc_info]) == 1
