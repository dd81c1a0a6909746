"""Cancelled, slow and crowded callers: blocks come back, others go on."""

import asyncio
import random
import threading
from typing import Any

import grpc
import pytest

from attention_svc.sequence.sequence import EmittedToken, Outbox, SequenceEnd
from tests.support.attention_svc.generate_harness import (
    NUM_BLOCKS,
    heard,
    reference,
    request,
    running_service,
    stub_of,
    until,
)
from tests.support.chaos.history import Ask, History, Verdict, check, check_prefix


async def test_a_cancelled_call_is_gone_before_the_next_step():
    async with running_service() as service, stub_of(service) as stub:
        service.transport.delay_s = 0.01
        call = stub.Generate(request(max_tokens=100))
        await call.read()
        (sequence,) = service.engine.scheduler.running
        call.cancel()
        await until(lambda: sequence.finished)
        assert not sequence.block_table
        assert service.idle
        steps = service.transport.steps
        await asyncio.sleep(0.1)
        assert service.transport.steps <= steps + 1


async def test_a_waiting_call_that_is_cancelled_leaves_the_queue():
    async with running_service(max_running=1) as service, stub_of(service) as stub:
        service.transport.gate.clear()
        first = asyncio.create_task(heard(stub, request(max_tokens=3)))
        await until(lambda: service.engine.scheduler.running)
        waiting = stub.Generate(request())
        reading = asyncio.create_task(waiting.read())
        await until(lambda: service.engine.scheduler.waiting)
        waiting.cancel()
        await until(lambda: not service.engine.scheduler.waiting)
        reading.cancel()
        service.transport.gate.set()
        assert (await first).reason == "LENGTH"
        await service.until_idle()


async def follow(
    stub: Any, history: History, most_events: int | None, later_s: float = 0.0
) -> None:
    """Note what comes. Cancelled `later_s` after `most_events`, or followed to its end for None."""
    ask = history.ask
    call = stub.Generate(request(list(ask.prompt), max_tokens=ask.max_tokens))
    while most_events is None or len(history.events) < most_events:
        response = await call.read()
        if response is grpc.aio.EOF:
            return
        history.late_events += bool(history.terminals)
        if response.WhichOneof("event") == "finished":
            history.terminals.append(response.finished)
        else:
            history.events.append((0.0, response.tokens.index, tuple(response.tokens.token_ids)))
    await asyncio.sleep(later_s)
    call.cancel()
    history.status = "CANCELLED"


async def cancel_storm(count: int) -> None:
    """J9: `count` calls, most of them cancelled at random moments, must leave nothing behind."""
    chance = random.Random(4)
    whole = Ask(prompt=(5, 6, 7), max_tokens=10)
    prompts = [
        tuple(chance.randrange(3, 60) for _ in range(chance.randrange(1, 20)))
        for _ in range(count // 20)
    ]
    asks = [Ask(prompt=prompt, max_tokens=90) for prompt in prompts]
    expected = {
        ask: reference().greedy(list(ask.prompt), ask.max_tokens, frozenset())
        for ask in (whole, *asks)
    }
    async with (
        running_service(max_waiting=count, max_waiting_tokens=10**6) as service,
        stub_of(service) as stub,
    ):
        service.transport.delay_s = 0.0005

        async def one(index: int) -> History:
            await asyncio.sleep(chance.random() * count / 200)
            history = History(whole if index % 10 == 0 else chance.choice(asks))
            if index % 10 == 0:
                await follow(stub, history, None)
            else:
                await follow(stub, history, chance.randrange(0, 5), chance.random() * 0.02)
            return history

        last = await one(0)  # so that what is created on first use exists
        tasks, threads = len(asyncio.all_tasks()), threading.active_count()
        histories = [last, *await asyncio.gather(*(one(index) for index in range(count)))]
        await service.until_idle()
        await until(lambda: len(asyncio.all_tasks()) <= tasks)
        assert threading.active_count() <= threads
        kept = [*service.blocks._free, *service.blocks._cached]
        assert sorted(kept) == list(range(NUM_BLOCKS))
        histories.append(await one(0))
    judge = {True: check, False: check_prefix}
    verdict = sum((judge[h.ask is whole](h, expected[h.ask]) for h in histories), Verdict())
    assert verdict.right, verdict.problems[:5]
    assert sum(history.finished for history in histories) == 2 + -(-count // 10)


async def test_a_hundred_random_cancellations_leave_no_block():
    await cancel_storm(100)


@pytest.mark.slow
async def test_a_thousand_random_cancellations_leave_no_block():
    await cancel_storm(1000)


async def test_a_channel_that_dies_frees_its_sequences():
    async with running_service() as service:
        service.transport.delay_s = 0.01
        async with stub_of(service) as stub:
            calls = [stub.Generate(request(max_tokens=100)) for _ in range(4)]
            for call in calls:
                await call.read()
        await service.until_idle()


async def test_preempted_sequences_finish_with_the_references_tokens():
    prompts = [[7 + i, 8, 9] * 10 for i in range(5)]
    async with running_service() as service, stub_of(service) as stub:
        results = await asyncio.gather(*(heard(stub, request(p, max_tokens=60)) for p in prompts))
        assert service.engine.scheduler.num_preemptions > 0
        assert service.idle
    for prompt, result in zip(prompts, results, strict=True):
        assert result.tokens == reference().greedy(prompt, 60, frozenset())


async def test_a_slow_reader_gets_the_tokens_in_fewer_events():
    async with running_service() as service:
        events = service.servicer.Generate(request(max_tokens=30), _Context())
        first = await anext(events)
        await until(lambda: service.engine.num_tokens == 30)
        second, last = [event async for event in events]
        assert [*first.tokens.token_ids, *second.tokens.token_ids] == reference().greedy(
            [5, 6, 7], 30, frozenset()
        )
        assert second.tokens.index == len(first.tokens.token_ids)
        assert last.finished.usage.generated_tokens == 30
        assert service.idle


async def test_an_outbox_keeps_order_and_its_first_outcome():
    outbox = Outbox()
    for token_id in (1, 2):
        outbox.put(EmittedToken(token_id))
    assert [t.token_id for t in (await outbox.take())[0]] == [1, 2]
    outbox.put(EmittedToken(3))
    outbox.close(SequenceEnd(reason="STOP"))
    outbox.close(SequenceEnd(reason="ABORTED"))
    tokens, outcome = await outbox.take()
    assert [t.token_id for t in tokens] == [3]
    assert outcome == SequenceEnd(reason="STOP")


async def test_stopping_the_service_ends_every_call_explicitly():
    async with running_service(max_running=2) as service, stub_of(service) as stub:
        service.transport.delay_s = 0.05
        calls = [asyncio.create_task(heard(stub, request(max_tokens=90))) for _ in range(4)]
        queues = service.engine.scheduler
        await until(lambda: (len(queues.running), len(queues.waiting)) == (2, 2))
        service.engine.abort_all(SequenceEnd(reason="ABORTED", error="stopping", retryable=True))
        for call in calls:
            result = await call
            assert result.reason == "ABORTED"
            assert result.finished is not None
            assert result.finished.retryable
        await service.until_idle()


class _Context:
    """Enough of a ServicerContext for a call without transport."""

    async def abort(self, code: grpc.StatusCode, details: str) -> Any:
        raise AssertionError((code, details))
