"""How are quantiles known of more numbers than are kept? By a fair sample of them."""

import math
import random
from array import array
from collections.abc import Sequence

SIZE = 5_000


class Reservoir:
    """Each number that was added is kept with the same chance; up to `size`, all are.

    Li's algorithm L ("Reservoir-sampling algorithms of time complexity O(n(1+log(N/n)))", 1994):
    it draws how many numbers to pass over, not for each of them. The same numbers give the same
    sample.
    """

    def __init__(self, size: int = SIZE):
        self.size = size
        self._kept = array("d")
        self._random = random.Random(0)
        self._weight = 1.0
        self._skip = 0

    @property
    def is_full(self) -> bool:
        return len(self._kept) == self.size

    def add(self, numbers: Sequence[float]) -> None:
        at = 0
        if not self.is_full:
            at = min(self.size - len(self._kept), len(numbers))
            self._kept.extend(numbers[:at])
            if not self.is_full:
                return
            if at:
                self._draw_skip()
        at += self._skip
        while at < len(numbers):
            self._kept[self._random.randrange(self.size)] = numbers[at]
            self._draw_skip()
            at += 1 + self._skip
        self._skip = at - len(numbers)

    def quantiles(self, shares: Sequence[float]) -> list[float]:
        """Linear between neighbours, as numpy and pandas do it. Needs at least one number."""
        ordered = sorted(self._kept)
        found = []
        for share in shares:
            place = share * (len(ordered) - 1)
            low = math.floor(place)
            high = min(low + 1, len(ordered) - 1)
            part = place - low
            found.append(ordered[low] * (1 - part) + ordered[high] * part)
        return found

    def _draw_skip(self) -> None:
        self._weight *= math.exp(math.log(1 - self._random.random()) / self.size)
        chance = math.log1p(-self._weight) or -1e-300
        self._skip = math.floor(math.log(1 - self._random.random()) / chance)
