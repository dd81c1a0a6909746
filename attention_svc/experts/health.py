"""How fast is a pool, and can it be trusted with the next call? No I/O, no clock of its own.

Latency is smoothed in three parts, because they scale differently: the network's share of a round
trip, the wait in the pool's queue, and the computation per unit of work.
"""

import math

from rpc.mesh.work import ROWS_PER_EXPERT_READ

SMOOTHING = 0.2
"""Weight of the newest observation."""
PING_SMOOTHING = 0.5
"""The same for an idle pool's ping, of which there is one a second."""
FAILURES_TO_EJECT = 3
FIRST_EJECTION_S = 1.0
LONGEST_EJECTION_S = 30.0
MIN_TIMEOUT_S = 0.5
TIMEOUT_FACTOR = 4.0
UNKNOWN_TIMEOUT_S = 30.0
"""For a pool that has not answered yet: its first call may have to page its weights in."""
FORGETTING = 0.01
"""By this share each ping of an idle pool lowers its estimated computing time: a pool that is
avoided for being slow has to be tried again some day, as perhaps only its first call was slow."""
SLOWER = 4.0
"""A pool is slow from this many times the fastest replica's time on: noise must not move work."""
_FAST_S = 0.00025


def work_units(num_pairs: int, num_experts: int) -> float:
    """A call's size: expert weights read, plus its rows' arithmetic in the same unit."""
    return num_experts + num_pairs / ROWS_PER_EXPERT_READ


def speed_class(predicted_s: float, fastest_s: float) -> int:
    """0: about as fast as the fastest candidate, or not known (0 s); higher is slower."""
    if not predicted_s:
        return 0
    return max(0, math.floor(math.log(predicted_s / max(fastest_s, _FAST_S), SLOWER)))


class PoolHealth:
    """One pool as seen by one attention service. Times in seconds, all on the same clock."""

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
        """Note a sound answer."""
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
        """Note an idle pool's answer to a ping, which may readmit the pool if it was ejected."""
        if self._answers:
            self.network_s += PING_SMOOTHING * (round_trip_s - self.network_s)
            self._queue_s *= 1 - SMOOTHING
            self._unit_s *= 1 - FORGETTING
        if self.ejected and now_s >= self._ejected_until_s and round_trip_s < MIN_TIMEOUT_S:
            self.ejected = False
            self._failures = FAILURES_TO_EJECT - 1  # on trial: the next failure ejects it again

    def late(self, waited_s: float) -> None:
        """Note a call given up after this long: the time to expect until pings are fast again."""
        if self._answers:
            self.network_s = max(self.network_s, waited_s)

    def failed(self, now_s: float) -> bool:
        """Note a timeout, a corrupt answer or the pool's own error; True when it gets ejected."""
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
        """After this long a call is sent to a replica. No fixed cap: large calls take long."""
        if not self._answers:
            return UNKNOWN_TIMEOUT_S
        return max(MIN_TIMEOUT_S, TIMEOUT_FACTOR * self.predict_s(units))


class RetryBudget:
    """Prevents storms of retries: at most a tenth of all calls, and a few more a second."""

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
