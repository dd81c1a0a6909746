"""The watchdog on a real engine: where a step hangs, and that it goes on."""

import asyncio

from attention_svc.engine.watchdog import Watchdog
from tests.support.attention_svc.generate_harness import (
    heard,
    request,
    running_service,
    stub_of,
    until,
)


async def test_a_step_held_at_its_experts_is_a_stall_and_a_long_answer_is_none():
    async with running_service() as service, stub_of(service) as stub:
        now_s = [0.0]
        dog = Watchdog(
            service.engine.progress,
            service.engine._metrics,
            limit_s=5.0,
            awaited=list,
            clock=lambda: now_s[0],
        )
        service.transport.gate.clear()
        answer = asyncio.ensure_future(heard(stub, request()))
        await until(lambda: service.transport.steps)
        dog.check()
        now_s[0] = 6.0
        dog.check()
        assert dog.reason == "a step has made no progress for 5 s: layer 0"
        service.transport.gate.set()
        await until(lambda: service.engine.num_tokens >= 2)
        dog.check()
        assert dog.reason == ""
        assert (await answer).reason == "LENGTH"
        now_s[0] = 100.0
        dog.check()
        now_s[0] = 200.0
        dog.check()
        assert dog.reason == "", "nothing to do"


async def test_each_layer_is_progress():
    async with running_service() as service, stub_of(service) as stub:
        seen: list[int] = []
        service.transport.on_submit = lambda: seen.append(service.engine.progress.moves)
        await heard(stub, request(max_tokens=3))
        assert len(seen) == 6, "three steps of two layers"
        assert seen == sorted(set(seen))
