"""How does a loop survive an exception in one of its turns, without flooding the log?

failures = LoopFailures(log, "cannot follow the members")
while True:
    with failures:
        ...
    await asyncio.sleep(...)
"""

import logging
import time
from collections.abc import Callable
from traceback import walk_tb
from types import TracebackType

AGAIN_S = 60.0
"""A failure at the same place in the code is logged at most once in this time."""


class LoopFailures:
    """A context manager for each turn: an exception is logged, and ends only that turn."""

    def __init__(
        self,
        log: logging.Logger,
        what: str,
        *,
        on_failure: Callable[[Exception], None] = lambda error: None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """`what`: the message to log; `on_failure`: called for each failure, logged or not."""
        self._log = log
        self._what = what
        self._on_failure = on_failure
        self._clock = clock
        self._told_s: dict[tuple[type, str, int], float] = {}
        """When each was last logged, by type and place: no more entries than lines of code."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if not isinstance(error, Exception):
            return False  # no failure, or the loop is being cancelled
        *_, (frame, line) = walk_tb(traceback)
        place = (type(error), frame.f_code.co_filename, line)
        now_s = self._clock()
        if now_s - self._told_s.get(place, -AGAIN_S) >= AGAIN_S:
            self._told_s[place] = now_s
            self._log.error("%s", self._what, exc_info=error)
        self._on_failure(error)
        return True
