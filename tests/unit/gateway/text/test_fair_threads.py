"""Whose long work is done next? Judged by order, not by the clock."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable

import pytest

from gateway.errors import Kind, RequestError
from gateway.text.fair_threads import FairThreads

WAIT_S = 20.0


class Held:
    """Work that ends when told to, and a list of what has begun."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.go_on = threading.Event()

    def work(self, name: str) -> Callable[[], str]:
        def run() -> str:
            self.begun.append(name)
            assert self.go_on.wait(WAIT_S)
            return name

        return run

    async def until(self, count: int) -> None:
        async with asyncio.timeout(WAIT_S):
            while len(self.begun) < count:
                await asyncio.sleep(0.001)


@pytest.fixture
async def threads() -> AsyncIterator[FairThreads]:
    made = FairThreads(3, max_waiting=64)
    yield made
    made.close()


async def test_one_clients_work_never_takes_the_last_thread(threads: FairThreads) -> None:
    held = Held()
    busy = [asyncio.create_task(threads.run("busy", held.work(f"busy {i}"))) for i in range(40)]
    await held.until(2)
    assert threads._slots.num_waiting == 38
    assert await threads.run("other", lambda: "served") == "served"
    assert len(held.begun) == 2
    held.go_on.set()
    assert await asyncio.gather(*busy) == [f"busy {i}" for i in range(40)]


async def test_others_are_served_before_more_of_the_busiest(threads: FairThreads) -> None:
    held = Held()
    tasks = [asyncio.create_task(threads.run("a", held.work("a"))) for _ in range(9)]
    await held.until(2)
    tasks += [asyncio.create_task(threads.run(name, held.work(name))) for name in "bcd"]
    await held.until(3)
    held.go_on.set()
    await asyncio.gather(*tasks)
    assert held.begun[:5] == ["a", "a", "b", "c", "d"]


async def test_work_that_is_given_up_keeps_its_thread_until_it_ends(threads: FairThreads) -> None:
    held = Held()
    with pytest.raises(TimeoutError):
        await threads.run("a", held.work("slow"), timeout_s=0.05)
    tasks = [asyncio.create_task(threads.run("a", held.work("next"))) for _ in range(3)]
    await held.until(2)
    assert threads._slots.num_waiting == 2
    held.go_on.set()
    await asyncio.gather(*tasks)


async def test_a_turn_that_does_not_come_in_time_is_told_to_try_again(threads: FairThreads) -> None:
    held = Held()
    tasks = [asyncio.create_task(threads.run("a", held.work("a"))) for _ in range(2)]
    await held.until(2)
    with pytest.raises(RequestError) as refused:
        await threads.run("a", held.work("late"), timeout_s=0.05)
    assert refused.value.kind is Kind.OVERLOADED
    held.go_on.set()
    await asyncio.gather(*tasks)
    assert "late" not in held.begun


async def test_one_client_cannot_fill_the_queue(threads: FairThreads) -> None:
    held = Held()
    tasks = [asyncio.create_task(threads.run("a", held.work("a"))) for _ in range(200)]
    await held.until(2)
    b = [asyncio.create_task(threads.run("b", held.work("b"))) for _ in range(2)]
    await held.until(3)
    held.go_on.set()
    assert await asyncio.gather(*b) == ["b", "b"]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    refused = [one for one in results if isinstance(one, RequestError)]
    assert {one.kind for one in refused} == {Kind.OVERLOADED}
    assert 0 < len(refused) < 200
