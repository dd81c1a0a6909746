"""Does the engine's step make progress? Checked on a thread, which a hung event loop does not stop.

Progress is a layer begun or combined, not a token: a long prefill is no stall. Everything that is
known to take long has its own time limit; this is for the unforeseen.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from attention_svc.metrics import AttentionMetrics

log = logging.getLogger(__name__)

CHECK_INTERVAL_S = 1.0
WHOLE_STEP = -1
"""In place of a layer: the device goes through all of them by itself."""


@dataclass(slots=True)
class StepProgress:
    """Where the engine is. Written between two layers, hence only numbers."""

    layer_idx: int = 0
    moves: int = 0  # counts layers begun and combined, and steps
    stepping: bool = False


class Watchdog:
    """`check` runs on one thread; `reason` may be read from any."""

    def __init__(
        self,
        progress: StepProgress,
        metrics: AttentionMetrics,
        *,
        limit_s: float,
        awaited: Callable[[], list[str]],
        clock: Callable[[], float] = time.monotonic,
    ):
        """`limit_s`: longest time without progress; `awaited`: ids of pools that owe answers."""
        self.reason = ""
        """Why the service is not ready; empty while steps make progress."""
        self._progress = progress
        self._metrics = metrics
        self._limit_s = limit_s
        self._awaited = awaited
        self._clock = clock
        self._seen = progress.moves
        self._since_s = clock()
        self._stopping = threading.Event()

    def check(self) -> None:
        """Note progress or its absence; log each stall once, and its end."""
        now_s, progress = self._clock(), self._progress
        if not progress.stepping or progress.moves != self._seen:
            if self.reason:
                log.warning("the step makes progress again after %.0f s", now_s - self._since_s)
            self._seen, self._since_s, self.reason = progress.moves, now_s, ""
        elif not self.reason and now_s - self._since_s >= self._limit_s:
            pools = ", ".join(self._awaited())
            layer = f"layer {progress.layer_idx}"
            where = "all layers on the device" if progress.layer_idx == WHOLE_STEP else layer
            where += f", waiting for {pools}" if pools else ""
            self.reason = f"a step has made no progress for {self._limit_s:g} s: {where}"
            self._metrics.stalls.inc()
            log.error("%s", self.reason)

    def start(self) -> None:
        """Check every second until `stop`; never without a limit."""
        if self._limit_s:
            threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.wait(CHECK_INTERVAL_S):
            self.check()
