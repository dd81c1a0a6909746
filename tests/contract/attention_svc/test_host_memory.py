"""Long prompts that evict each other: what the cache gave up is read back, with equal tokens."""

import asyncio

import pytest

from attention_svc.kv import host_memory
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

TINY = {"num_blocks": 12, "max_batch_tokens": 24}  # 96 positions
ONE = [3 + i % 50 for i in range(75)]
OTHER = [40 + i % 7 for i in range(70)]


async def ask(service: Service, prompt: list[int], max_tokens: int = 8) -> Heard:
    async with stub_of(service) as stub:
        answer = await heard(stub, request(prompt, max_tokens=max_tokens))
        assert answer.reason == "LENGTH"
        return answer


def cached(answer: Heard) -> int:
    assert answer.finished is not None
    return answer.finished.usage.cached_tokens


@pytest.mark.parametrize("slots", [0, 24])
async def test_a_prompt_that_another_evicted_is_not_computed_again(slots: int):
    async with running_service(**TINY, host_slots=slots) as service:
        first = await ask(service, ONE)
        await ask(service, OTHER)
        again = await ask(service, ONE)
        assert first.tokens == again.tokens == reference().greedy(ONE, 8, frozenset())
        assert cached(first) == 0
        if slots:
            assert cached(again) == len(ONE) - 1
        else:
            assert cached(again) < 24  # what was still in the cache
        await service.until_idle()
        read = service.engine._metrics.registry.get_sample_value
        assert (read("expertmesh_kv_host_blocks") or 0) <= slots
        for name in ("moved_out_blocks", "read_back_blocks", "saved_tokens"):
            assert bool(read(f"expertmesh_kv_host_{name}_total")) == bool(slots)


async def test_after_a_reset_it_is_computed():
    async with running_service(**TINY, host_slots=24) as service:
        for prompt in (ONE, OTHER):
            await ask(service, prompt)
        await service.until_idle()
        assert service.engine.reset_prefix_cache()
        assert cached(await ask(service, ONE)) == 0


async def test_many_streams_that_preempt_each_other_keep_their_tokens():
    prompts = [[5 + 3 * i + j % 40 for j in range(9 + 7 * i)] for i in range(6)]
    async with running_service(**TINY, host_slots=30) as service:
        for _ in range(2):
            answers = await asyncio.gather(*(ask(service, prompt, 20) for prompt in prompts))
            for prompt, answer in zip(prompts, answers, strict=True):
                assert answer.tokens == reference().greedy(prompt, 20, frozenset())
        assert service.engine.scheduler.num_preemptions > 0
        assert service.engine.scheduler.tables.host.num_read_back > 0


async def test_a_copy_that_fails_is_a_failed_step_and_its_blocks_are_never_read(monkeypatch):
    async with running_service(**TINY, host_slots=24) as service:
        await ask(service, ONE)
        await ask(service, OTHER)

        def fail(*_: object) -> None:
            raise RuntimeError("made up by a test")

        with monkeypatch.context() as patch:
            patch.setattr(host_memory.HostMemory, "read_back", fail)
            async with stub_of(service) as stub:
                failed = await heard(stub, request(ONE, max_tokens=8))
                assert failed.reason == "ERROR"
        answer = await ask(service, ONE)
        assert answer.tokens == reference().greedy(ONE, 8, frozenset())
        assert cached(answer) < 24  # what was still in the cache


async def test_a_copy_that_fails_ends_those_too_whom_its_step_had_no_rows_for(monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError("made up by a test")

    others = [[number] * 100 for number in (4, 5, 6)]
    first, short = [7 + i % 3 for i in range(60)], [11] * 25
    longest = [*ONE[:64], *([9] * 50)]
    async with running_service(num_blocks=32, max_batch_tokens=24, host_slots=60) as service:
        for prompt in (ONE, *others):
            await ask(service, prompt)
        monkeypatch.setattr(host_memory.HostMemory, "read_back", fail)
        service.transport.gate.clear()
        scheduler = service.engine.scheduler
        async with stub_of(service) as stub:
            calls: list[asyncio.Task[Heard]] = []
            for prompt in (first, short, longest):
                calls.append(asyncio.create_task(heard(stub, request(prompt, max_tokens=4))))
                await until(lambda: len(scheduler.running) + len(scheduler.waiting) == len(calls))
            service.transport.gate.set()
            answers = await asyncio.gather(*calls)
        assert [answer.reason for answer in answers] == ["ERROR"] * 3
