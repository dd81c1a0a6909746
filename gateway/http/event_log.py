"""Which events of an answer in the background can still be read, from any of them on?

Events are numbered from 0. A log keeps the newest ones, up to so many bytes, so that a client that
lost its connection goes on where it was. A log that has ended stays until later ones need the room.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator


class EventLost(Exception):
    """An event that is no longer kept was asked for; `first` is the oldest that is."""

    def __init__(self, first: int):
        super().__init__(f"the events before number {first} are no longer kept")
        self.first = first


class EventLog:
    """Of one answer; any number of readers."""

    def __init__(self, max_bytes: int):
        self._max_bytes = max_bytes
        self._events: deque[bytes] = deque()
        self._first = 0
        self._news = asyncio.Event()
        self.size_bytes = 0
        self.has_ended = False

    def add(self, data: bytes) -> None:
        """Events, each of which ends with a blank line."""
        for event in data.split(b"\n\n")[:-1]:
            self._events.append(event + b"\n\n")
            self.size_bytes += len(event) + 2
        while self.size_bytes > self._max_bytes:
            self.size_bytes -= len(self._events.popleft())
            self._first += 1
        self._tell()

    def end(self) -> None:
        self.has_ended = True
        self._tell()

    def check(self, number: int) -> None:
        """Raises EventLost if this event was there and is not."""
        if number < self._first:
            raise EventLost(self._first)

    async def read(self, number: int, pause_s: float) -> AsyncIterator[bytes]:
        """All events from this one on, until the log ends; b"" when none came for a while.

        Raises EventLost when the reader is slower than the log is long.
        """
        while True:
            news = self._news
            self.check(number)
            while number < self._first + len(self._events):
                event = self._events[number - self._first]
                number += 1
                yield event
                self.check(number)
            if self.has_ended:
                return
            if news is not self._news:
                continue  # something came while the reader had the last one
            try:
                async with asyncio.timeout(pause_s):
                    await news.wait()
            except TimeoutError:
                yield b""

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


class EventLogs:
    """The logs of one gateway, by their answers' ids."""

    def __init__(self, *, log_bytes: int, ended_bytes: int):
        """The most bytes of one log, and of all that have ended together."""
        self._log_bytes = log_bytes
        self._ended_bytes = ended_bytes
        self._running: dict[str, EventLog] = {}
        self._ended: OrderedDict[str, EventLog] = OrderedDict()

    def begin(self, id: str) -> EventLog:
        log = self._running[id] = EventLog(self._log_bytes)
        return log

    def end(self, id: str) -> None:
        """Its readers come to their end; nothing if it has no log."""
        log = self._running.pop(id, None)
        if log is None:
            return
        log.end()
        self._ended[id] = log
        while sum(one.size_bytes for one in self._ended.values()) > self._ended_bytes:
            self._ended.popitem(last=False)

    def forget(self, id: str) -> None:
        """The answer was deleted."""
        self.end(id)
        self._ended.pop(id, None)

    def get(self, id: str) -> EventLog | None:
        return self._running.get(id) or self._ended.get(id)
