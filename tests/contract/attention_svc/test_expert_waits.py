"""How long does a request wait for experts? Once, counting time elsewhere and in the queue."""

import asyncio

from protos import attention_pb2
from tests.support.attention_svc.fake_grammars import ONLY, HeldNine, add, ended, ids
from tests.support.attention_svc.generate_harness import (
    Heard,
    Service,
    heard,
    reference,
    request,
    running_service,
    stub_of,
    until,
)

LONG_AGO_MS = 3_600_000
"""Waited elsewhere: more than any service's limit here."""


def assert_no_experts(result: Heard) -> None:
    assert result.finished is not None
    assert (result.reason, result.finished.retryable) == ("ERROR", True)
    assert result.finished.error == "the experts are unavailable"


def waited_s(result: Heard) -> float:
    assert result.finished is not None
    return result.finished.experts_waited_ms / 1e3


def clock_s(service: Service) -> float:
    return service.engine.waits.awaited_s


async def test_a_request_that_has_waited_elsewhere_is_ended_early_and_alone():
    """The others in its step still have time left, and get the right tokens."""
    async with running_service(expert_timeout_s=20.0) as service, stub_of(service) as stub:
        transport, running = service.transport, service.engine.scheduler.running
        transport.gate.clear()
        transport.on_submit = lambda: transport.found.clear() if len(running) == 2 else None
        fresh = asyncio.ensure_future(heard(stub, request()))
        await until(lambda: len(running) == 1)
        told = request([9, 9, 5], experts_waited_ms=LONG_AGO_MS)
        moved = asyncio.ensure_future(heard(stub, told))
        await until(lambda: len(service.engine.scheduler.waiting) == 1)
        transport.gate.set()
        await until(lambda: clock_s(service) > 0)
        transport.on_submit = lambda: None
        assert len(running) == 2
        assert_no_experts(await moved)
        assert 19.0 < waited_s(await moved) < 25.0, "this service's own limit, elsewhere included"
        assert not fresh.done()
        assert clock_s(service) < 15.0
        transport.found.set()
        assert (await fresh).tokens == reference().greedy([5, 6, 7], 10, frozenset())
        await service.until_idle()


async def test_it_is_owed_a_first_try_and_full_time_after_its_first_token():
    async with running_service(expert_timeout_s=10.0) as service, stub_of(service) as stub:
        moved = asyncio.ensure_future(
            heard(stub, request(max_tokens=40, experts_waited_ms=LONG_AGO_MS))
        )
        await until(lambda: service.engine.num_tokens >= 2)
        service.transport.found.clear()
        await until(lambda: clock_s(service) > 0.6)  # it would have had half a second
        service.transport.found.set()
        result = await moved
        assert result.tokens == reference().greedy([5, 6, 7], 40, frozenset())
        assert waited_s(result) == 0.0


async def test_whoever_queues_behind_a_step_that_waits_waits_as_well():
    limits = {"max_running": 1}
    async with (
        running_service(expert_timeout_s=2.0, **limits) as service,
        stub_of(service) as stub,
    ):
        service.transport.found.clear()
        ended: list[str] = []

        async def ask(name: str, message: attention_pb2.GenerateRequest) -> Heard:
            result = await heard(stub, message)
            ended.append(name)
            return result

        running = asyncio.ensure_future(ask("running", request()))
        await until(lambda: service.transport.steps)
        behind = asyncio.ensure_future(ask("behind", request([8, 9])))
        moved = asyncio.ensure_future(ask("moved", request([4, 9], experts_waited_ms=LONG_AGO_MS)))
        await until(lambda: clock_s(service) > 0.01)
        status = await stub.GetStatus(attention_pb2.GetStatusRequest())
        assert 0 < status.experts_awaited_ms < 2500
        results = await asyncio.gather(running, behind, moved)
        for result in results:
            assert_no_experts(result)
            assert waited_s(result) > 1.0, "what is carried to the next service"
        assert ended[0] == "moved"
        await until(lambda: not service.engine.progress.stepping)
        status = await stub.GetStatus(attention_pb2.GetStatusRequest())
        assert status.experts_awaited_ms == 0


async def test_the_steps_of_one_prompt_have_one_time_together():
    """Otherwise a prompt of many steps could wait once in each of them."""
    async with (
        running_service(expert_timeout_s=1.0, max_batch_tokens=8) as service,
        stub_of(service) as stub,
    ):
        service.transport.found.clear()
        answer = asyncio.ensure_future(heard(stub, request([5] * 100)))
        waits: list[int] = []  # the step of each
        while not answer.done() and len(waits) < 12:  # a prompt of 13 steps
            await until(lambda: clock_s(service) > 0.4 or answer.done())
            waits.append(service.transport.steps)
            service.transport.found.set()
            await until(lambda: service.transport.steps > waits[-1] or answer.done())
            service.transport.found.clear()
        assert len(waits) <= 4
        assert_no_experts(await answer)
        await service.until_idle()


async def test_one_that_comes_while_its_step_waits_has_its_own_time():
    async with (
        running_service(expert_timeout_s=20.0, max_running=1) as service,
        stub_of(service) as stub,
    ):
        service.transport.found.clear()
        first = asyncio.ensure_future(heard(stub, request()))
        await until(lambda: clock_s(service) > 0.2)
        late = asyncio.ensure_future(heard(stub, request([8, 9], experts_waited_ms=LONG_AGO_MS)))
        assert_no_experts(await late)
        assert not first.done()
        first.cancel()
        await service.until_idle()


async def test_a_row_that_waits_for_its_grammar_does_not_wait_for_the_experts_of_others():
    """Its logits are there: what it lacks is its grammar's answer alone."""
    async with running_service(expert_timeout_s=0.5) as service:
        grammar = HeldNine()
        held = add(service, grammar)
        await until(lambda: service.engine._metrics.late_masks._value.get() == 1)
        service.transport.found.clear()
        beside = add(service, None, prompt=[9, 8], ignore_eos=True)
        _, end = await ended(beside)
        assert end.error == "the experts are unavailable"
        assert not held.finished
        assert service.engine.waits.waited_s(held) == 0.0
        service.transport.found.set()
        grammar.let(9)
        assert await ids(held) == [ONLY] * 3
        await service.until_idle()
