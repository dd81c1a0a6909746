"""How is a pool doing: how fast, and is it to be trusted with the next call? No I/O, no clock of its own.

Latency is smoothed in three parts, because they scale differently: the network's share of a round
trip, the wait in the pool's queue, and the computation per unit of work.
"""

import math

from rpc.mesh.work import ROWS_PER_EXPERT_READ

SMOOTHING = 0.2
"""Weight of the newest observation."""
PING_SMOOTHING = 0.5
"""The same of an idle pool's ping, of which there is one a second."""
FAILURES_TO_EJECT = 3
FIRST_EJECTION_S = 1.0
LONGEST_EJECTION_S = 30.0
MIN_TIMEOUT_S = 0.5
TIMEOUT_FACTOR = 4.0
UNKNOWN_TIMEOUT_S = 30.0
"""For a pool that has not answered yet: its first call may page its weights in."""
FORGETTING = 0.01
"""Share of a pool's computing time that each ping without a call in between makes us forget. One
that is passed over for being slow has to be tried again some day: it may have been its first call."""
SLOWER = 4.0
"""Times the fastest replica's time that make a pool a slow one: noise must not move work about."""
_FAST_S = 0.00025


def work_units(num_pairs: int, num_experts: int) -> float:
    """A call's size: expert weights read, plus its rows' arithmetic in the same unit."""
    return num_experts + num_pairs / ROWS_PER_EXPERT_READ


def speed_class(predicted_s: float, fastest_s: float) -> int:
    """0: about as fast as the fastest pool to choose from, or not known (0 s); higher is slower."""
    if not predicted_s:
        return 0
    return max(0, math.floor(math.log(predicted_s / max(fastest_s, _FAST_S), SLOWER)))


class PoolHealth:
    """What one attention service has seen of one pool. Times in seconds on any one clock."""

    def __init__(self) -> None:
        self.network_s = 0.0
        """Smoothed share of the network in a round trip; 0 before the first answer."""
        self._queue_s = 0.0
        self._unit_s = 0.0
        self._answers = 0
        self._failures = 0
        self._ejections = 0
        self._ejected_until_s = 0.0
        self.ejected = False

    def answered(self, round_trip_s: float, queue_s: float, compute_s: float, units: float) -> None:
        """A sound answer."""
        network_s = max(0.0, round_trip_s - queue_s - compute_s)
        weight = SMOOTHING if self._answers else 1.0
        self.network_s += weight * (network_s - self.network_s)
        self._queue_s += weight * (queue_s - self._queue_s)
        self._unit_s += weight * (compute_s / units - self._unit_s)
        self._answers += 1
        self._failures = 0
        if not self.ejected:
            self._ejections = 0

    def pinged(self, round_trip_s: float, now_s: float) -> None:
        """An idle pool answered a ping: fresh news of its network, and a probe of an ejected one."""
        if self._answers:
            self.network_s += PING_SMOOTHING * (round_trip_s - self.network_s)
            self._queue_s *= 1 - SMOOTHING
            self._unit_s *= 1 - FORGETTING
        if self.ejected and now_s >= self._ejected_until_s and round_trip_s < MIN_TIMEOUT_S:
            self.ejected = False
            self._failures = FAILURES_TO_EJECT - 1  # on trial: the next failure ejects it again

    def late(self, waited_s: float) -> None:
        """A call was given up after this long: it takes at least that. Pings tell when it is over."""
        if self._answers:
            self.network_s = max(self.network_s, waited_s)

    def failed(self, now_s: float) -> bool:
        """A timeout, a corrupt answer or an error of the pool's own; whether that ejects it."""
        self._failures += 1
        if self.ejected or self._failures < FAILURES_TO_EJECT:
            return False
        self.ejected = True
        pause_s = min(LONGEST_EJECTION_S, FIRST_EJECTION_S * 2**self._ejections)
        self._ejected_until_s = now_s + pause_s
        self._ejections += 1
        return True

    def predict_s(self, units: float) -> float:
        """Expected round trip of a call of this size; 0 before the first answer."""
        return self.network_s + self._queue_s + self._unit_s * units

    def timeout_s(self, units: float) -> float:
        """When a call is late enough to be sent to a replica. No fixed cap: big calls take long."""
        if not self._answers:
            return UNKNOWN_TIMEOUT_S
        return max(MIN_TIMEOUT_S, TIMEOUT_FACTOR * self.predict_s(units))


class RetryBudget:
    """Re-sent calls are at most a tenth of all, and a few a second besides: no storm of retries."""

    def __init__(self, *, ratio: float = 0.1, per_second: float = 10.0, most: float = 50.0):
        self._ratio = ratio
        self._per_second = per_second
        self._most = most
        self._left = most
        self._seen_s = 0.0

    def earn(self) -> None:
        """A call was answered."""
        self._left = min(self._most, self._left + self._ratio)

    def spend(self, now_s: float) -> bool:
        """Whether one more call may be re-sent now."""
        self._left = min(self._most, self._left + self._per_second * (now_s - self._seen_s))
        self._seen_s = now_s
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
