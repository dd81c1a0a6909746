"""A log of events is read from any of them on, by readers of any speed, and stays within bounds."""

import asyncio

import pytest

from gateway.http.event_log import EventLog, EventLogs, EventLost

PAUSE_S = 30.0


def event(number: int) -> bytes:
    return b"event: e\ndata: %d\n\n" % number


async def everything(log: EventLog, number: int) -> list[bytes]:
    return [one async for one in log.read(number, PAUSE_S)]


@pytest.mark.parametrize("sizes", [[6], [1] * 6, [2, 0, 3, 1]])
def test_readers_that_come_at_any_time_read_the_same(sizes: list[int]) -> None:
    async def scene() -> None:
        log, readers, number = EventLog(10_000), [], 0
        for size in sizes:
            readers.append(asyncio.create_task(everything(log, 0)))
            readers.append(asyncio.create_task(everything(log, 4)))
            await asyncio.sleep(0)
            log.add(b"".join(event(i) for i in range(number, number + size)))
            number += size
        log.end()
        readers.append(asyncio.create_task(everything(log, 0)))
        whole = [event(i) for i in range(6)]
        for index, reader in enumerate(readers):
            assert await reader == (whole[4:] if index % 2 else whole)

    asyncio.run(scene())


def test_the_oldest_make_room_and_slow_readers_are_told() -> None:
    async def scene() -> None:
        log = EventLog(3 * len(event(0)))
        log.add(event(0))
        slow = log.read(0, PAUSE_S)
        assert await anext(slow) == event(0)
        for number in range(1, 6):
            log.add(event(number))
        assert log.size_bytes == 3 * len(event(0))
        with pytest.raises(EventLost, match="before number 3 "):
            await anext(slow)
        log.end()
        assert await everything(log, 3) == [event(3), event(4), event(5)]
        assert await everything(log, 9) == []

    asyncio.run(scene())


def test_a_reader_learns_that_nothing_has_come() -> None:
    async def scene() -> None:
        log = EventLog(1000)
        reader = log.read(0, 0.001)
        assert await anext(reader) == b""
        log.add(event(0))
        assert await anext(reader) == event(0)

    asyncio.run(scene())


def test_logs_that_have_ended_share_a_bound_and_running_ones_stay() -> None:
    async def scene() -> None:
        logs = EventLogs(log_bytes=1000, ended_bytes=2 * len(event(0)))
        for id in ("running", "a", "b", "c"):
            logs.begin(id).add(event(1))
        for id in ("a", "b", "c", "unknown"):
            logs.end(id)
        kept = [id for id in ("running", "a", "b", "c") if logs.get(id)]
        assert kept == ["running", "b", "c"]
        logs.forget("c")
        assert logs.get("c") is None

    asyncio.run(scene())
