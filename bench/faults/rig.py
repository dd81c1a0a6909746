"""Which mesh and load does bench/faults/faults.py disturb, and what does it measure?"""

import math
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.chaos.gateway_rig import GatewayRig
from tests.support.chaos.history import Verdict
from tests.support.chaos.rig import LOWER, UPPER, Rig
from tests.support.chaos.streams import Load, Oracle

STREAMS = 8
CONTROL_S = 2.0
"""How long a trial runs before its fault, to know what is normal."""
STRIPES_TWICE = (LOWER, LOWER, UPPER, UPPER)
"""Layer-striped, two replicas of each stripe."""
STRIPES_ONCE = (LOWER, UPPER)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@dataclass
class Sample:
    """One trial."""

    verdict: Verdict
    pauses_ms: list[float]
    gap_p99_ms: float  # fault-free, of the same run
    control_pause_ms: float  # the fault-free part's own longest gap beyond that
    after_p99_ms: float  # gaps, once it has settled
    rate_ratio: float  # tokens/s then / before
    gaps_ms: list[list[float]]  # of each stream, from the fault on
    extra: dict[str, Any] = field(default_factory=dict)


def percentile(values: Sequence[float], share: float) -> float:
    """By nearest rank; NaN if there are no values."""
    if not values:
        return math.nan
    return sorted(values)[min(len(values) - 1, math.ceil(share * len(values)) - 1)]


class Measured:
    """Trials for a rig: how its load fares before, during and after a disturbance."""

    num_streams = STREAMS
    load: Callable[[int], Load]
    oracle: Oracle

    def trial(
        self,
        fault: Callable[[], Any],
        *,
        after_s: float = 3.0,
        settle_s: float = 1.0,
        extra: dict[str, Any] | None = None,
        may_refuse: bool = False,
    ) -> Sample:
        """Run the load, a quiet time, the fault, and `after_s` from the end of the fault on.

        `may_refuse`: a request sent during the fault may be refused because a piece has no holder
        (readiness is false then); such requests are counted separately.
        """
        with self.load(self.num_streams) as load:
            load.warm()
            begin_s = time.monotonic()
            time.sleep(CONTROL_S)
            fault_s = time.monotonic()
            fault()
            done_s = time.monotonic()
            time.sleep(after_s)
            end_s = time.monotonic()
        histories = load.histories
        extra = dict(extra or {})
        if may_refuse:
            histories = [
                history
                for history in histories
                if not (history.refused_without_holder and fault_s <= history.sent_s <= done_s)
            ]
            extra["refused_meanwhile"] = len(load.histories) - len(histories)
        settled_s = min(done_s + settle_s, end_s - 0.5)
        control = [gap for gaps in self._gaps(load, begin_s, fault_s) for gap in gaps]
        normal_ms = percentile(control, 0.99)
        gaps_ms = list(self._gaps(load, fault_s, end_s))
        after = [gap for gaps in self._gaps(load, settled_s, end_s) for gap in gaps]
        return Sample(
            verdict=self.oracle.check(histories),
            pauses_ms=[max(0.0, max(gaps, default=0.0) - normal_ms) for gaps in gaps_ms],
            gap_p99_ms=normal_ms,
            control_pause_ms=max(control) - normal_ms,
            after_p99_ms=percentile(after, 0.99),
            rate_ratio=self._rate(load, settled_s, end_s) / self._rate(load, begin_s, fault_s),
            gaps_ms=gaps_ms,
            extra=extra,
        )

    @staticmethod
    def _gaps(load: Load, begin_s: float, end_s: float) -> Iterator[list[float]]:
        """Per stream: the gaps in ms that ended in this time. A request's first gap is its TTFT."""
        for stream in load.streams:
            yield [
                1e3 * (end - start)
                for history in stream
                for start, end in history.gaps()
                if begin_s <= end < end_s
            ]

    @staticmethod
    def _rate(load: Load, begin_s: float, end_s: float) -> float:
        num_tokens = sum(
            len(tokens)
            for history in load.histories
            for arrived_s, _, tokens in history.events
            if begin_s <= arrived_s < end_s
        )
        return num_tokens / (end_s - begin_s)


class MeasuredRig(Measured, Rig):
    """Sends the load to the attention service itself."""


class MeasuredGatewayRig(Measured, GatewayRig):
    """Sends the load through a gateway."""


@contextmanager
def work_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="expertmesh-faults-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
