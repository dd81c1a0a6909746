"""How far is loading? Bytes done, their rate and the time left: for a log and for /readyz."""

import logging
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

LOG_INTERVAL_S = 2.0
GB = 10**9


class LoadProgress:
    """Of one load: made where it begins. `add` from one thread; the rest from any."""

    def __init__(
        self,
        total_bytes: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        show: Callable[[str], None] = log.info,
    ):
        """`show` gets a line when there is news, at most every LOG_INTERVAL_S."""
        self._total = total_bytes
        self._clock, self._show = clock, show
        self._start_s = self._shown_s = clock()
        self._done, self._done_s = 0, self._start_s

    def add(self, size_bytes: int) -> None:
        """So many more bytes are in place."""
        self._done += size_bytes
        self._done_s = self._clock()
        if self._done_s - self._shown_s >= LOG_INTERVAL_S:
            self._shown_s = self._done_s
            self._show(f"loading, {self}")

    @property
    def ratio(self) -> float:
        return min(1.0, self._done / self._total) if self._total else 0.0

    def __str__(self) -> str:
        """43 %: 12.3 of 28.6 GB, 1.21 GB/s, 14 s left."""
        text = f"{100 * self.ratio:.0f} %"
        elapsed_s = self._done_s - self._start_s
        if not self._done or elapsed_s <= 0:
            return text
        rate = self._done / elapsed_s
        left_s = max(0, self._total - self._done) / rate
        return (
            f"{text}: {self._done / GB:.3g} of {self._total / GB:.3g} GB, {rate / GB:.3g} GB/s, "
            f"{left_s:.0f} s left"
        )
