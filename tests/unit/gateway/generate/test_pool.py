"""Which attention services are followed, and what is logged of those that cannot be."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from gateway.generate import pool as attention_pool
from gateway.generate.pool import AttentionPool
from gateway.generate.replica import Replica
from protos import attention_pb2

GOOD = ["127.0.0.1:1", "127.0.0.1:2"]
BAD = ["", "nowhere", "127.0.0.1:99999", "unix:/run/secret", "xds:///x", "a\nb:1\0", "[::1"]


class World:
    """A pool that follows `addresses` many times a second."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.turns = 0
        self.pool = AttentionPool(self._ask, vocab_size=10, tls=None, poll_interval_s=0.005)

    def _ask(self) -> list[str]:
        self.turns += 1
        return self.addresses

    def followed(self) -> set[str]:
        return {replica.address for replica in self.pool.replicas}

    async def some_turns(self) -> None:
        await until(lambda turns=self.turns: self.turns > turns + 20)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    world.pool.start()
    yield world
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(world.pool.stop(), 10)


def lines(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == attention_pool.__name__]


async def test_a_bad_address_keeps_no_other_out_and_is_told_of_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.addresses = [*BAD, *GOOD]
    await world.some_turns()
    assert world.followed() == set(GOOD)
    told = lines(caplog)
    assert len(told) == len(BAD)
    assert not any(record.exc_info for record in told)
    assert "127.0.0.1:99999" in caplog.text
    assert all(record.getMessage().isprintable() for record in told)


async def test_one_that_has_left_and_comes_again_is_told_of_again(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    for number_told in (1, 2):
        world.addresses = ["nowhere"]
        await world.some_turns()
        assert len(lines(caplog)) == number_told
        world.addresses = []
        await world.some_turns()


async def test_one_that_cannot_be_dialled_is_told_of_once_and_tried_again(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[str] = []

    def make(address: str, tls: Any) -> Replica:
        tries.append(address)
        if address == GOOD[0] and len(tries) < 15:
            raise RuntimeError("no more open files")
        return Replica(address, tls)

    monkeypatch.setattr(attention_pool, "Replica", make)
    world.addresses = GOOD
    await until(lambda: world.followed() == set(GOOD))
    (told,) = (line for line in lines(caplog) if line.levelno >= logging.WARNING)
    assert "127.0.0.1:1" in told.getMessage()
    assert "no more open files" in caplog.text
    assert not told.exc_info


async def test_a_bug_in_a_poll_neither_ends_the_polling_nor_floods_the_log(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the service would keep the state it had when the poll failed, maybe ready."""
    polls = 0

    async def poll(self: Replica, check: Callable[[Any], str | None]) -> None:
        nonlocal polls
        if self.address not in GOOD:
            return  # a gateway that other tests share and that outlives this one
        polls += 1
        if polls == 1 or polls > 20:
            self.not_ready_reason = check(
                attention_pb2.GetStatusResponse(vocab_size=10, max_model_len=10)
            )
            return
        raise TypeError(f"poll {polls}")

    monkeypatch.setattr(Replica, "poll", poll)
    world.addresses = GOOD[:1]
    await until(lambda: polls > 5)
    assert not world.pool.readiness()[0]
    await until(lambda: world.pool.readiness()[0])
    assert len([line for line in lines(caplog) if line.exc_info]) == 1


async def test_a_bug_in_the_following_neither_ends_it_nor_floods_the_log(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> list[str]:
        world.turns += 1
        raise TypeError(f"turn {world.turns}")

    world.pool._addresses = broken
    await world.some_turns()
    assert len(lines(caplog)) == 1
    world.pool._addresses = world._ask
    world.addresses = GOOD
    await until(lambda: world.followed() == set(GOOD))
