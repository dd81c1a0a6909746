"""Whose work do the shared threads do next? Judged by order, not by the clock."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from attention_svc.grammar.shared_threads import SharedThreads

WAIT_S = 10.0


class Gate:
    """Work that says when it begins and ends when told."""

    def __init__(self, threads: SharedThreads) -> None:
        self._threads = threads
        self._let: dict[str, threading.Event] = {}
        self._changed = threading.Condition()
        self.begun: list[str] = []
        self.done: list[str] = []

    def submit(self, name: str) -> None:
        """The client is the name's first letter."""
        let = self._let[name] = threading.Event()

        def work() -> None:
            self._note(self.begun, name)
            assert let.wait(WAIT_S)
            self._note(self.done, name)

        self._threads.submit(name[0], work)

    def end(self, name: str) -> None:
        self._let[name].set()
        self.until(lambda: name in self.done)

    def until(self, condition) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, WAIT_S)

    def _note(self, where: list[str], name: str) -> None:
        with self._changed:
            where.append(name)
            self._changed.notify_all()


@pytest.fixture
def threads() -> Iterator[SharedThreads]:
    made = SharedThreads(2, name="test")
    yield made
    made.close()


def test_a_client_has_all_threads_but_one_and_others_come_in_turn(threads: SharedThreads):
    gate = Gate(threads)
    for name in ("a1", "a2", "a3"):
        gate.submit(name)
    gate.until(lambda: gate.begun == ["a1"])
    gate.submit("b1")
    gate.until(lambda: gate.begun == ["a1", "b1"])
    gate.submit("c1")
    gate.end("a1")
    gate.until(lambda: len(gate.begun) == 3)
    assert gate.begun == ["a1", "b1", "c1"]
    gate.end("b1")
    gate.end("c1")
    gate.until(lambda: gate.begun[3:] == ["a2"])
    gate.end("a2")
    gate.until(lambda: gate.begun[4:] == ["a3"])
    gate.end("a3")


def test_work_that_raises_keeps_no_turn(threads: SharedThreads):
    def fail() -> None:
        raise RuntimeError("a bug")

    for _ in range(5):
        threads.submit("a", fail)
    gate = Gate(threads)
    gate.submit("a1")
    gate.until(lambda: gate.begun == ["a1"])
    gate.end("a1")


async def test_run_returns_or_raises_what_the_work_does(threads: SharedThreads):
    assert await threads.run("a", lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        await threads.run("a", lambda: 1 // 0)


async def test_cancelled_work_that_has_not_begun_is_not_done(threads: SharedThreads):
    gate, done = Gate(threads), []
    gate.submit("a1")
    gate.until(lambda: gate.begun == ["a1"])
    waiting = asyncio.create_task(threads.run("a", lambda: done.append("never")))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    gate.end("a1")
    assert await threads.run("a", lambda: 8) == 8
    assert done == []


def test_nothing_begins_once_it_is_closed():
    threads = SharedThreads(2, name="test")
    gate = Gate(threads)
    gate.submit("a1")
    gate.submit("a2")
    gate.until(lambda: gate.begun == ["a1"])
    threads.close()
    gate.end("a1")
    threads._threads.shutdown(wait=True)
    assert gate.begun == ["a1"]
