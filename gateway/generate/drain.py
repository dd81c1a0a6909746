"""How fast does a queue drain, and when should a refused client come back?"""

import math
import time
from collections.abc import Callable

MEMORY_S = 30.0


class Drain:
    """Counts the requests inside, and those served per second of busy time.

    Old counts fade over about `MEMORY_S` of busy time: an idle hour does not make a queue slow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._now_s = clock()
        self._busy_s = 0.0
        self._served = 0.0
        self.inside = 0

    def enter(self) -> None:
        self._advance()
        self.inside += 1

    def leave(self, *, served: bool) -> None:
        """`served` is false for one that gave up: that says nothing about the pace."""
        self._advance()
        self.inside -= 1
        self._served += served

    def wait_s(self, num_ahead: int) -> float:
        """Time until `num_ahead` are served; until one was, as if the first were about to be."""
        self._advance()
        return num_ahead * self._busy_s / max(self._served, 1.0)

    def _advance(self) -> None:
        now_s = self._clock()
        if self.inside:
            kept = math.exp(-(now_s - self._now_s) / MEMORY_S)
            self._served *= kept
            self._busy_s = self._busy_s * kept + MEMORY_S * (1.0 - kept)
        self._now_s = now_s
