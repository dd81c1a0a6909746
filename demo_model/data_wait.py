"""Does training wait for its data? A run that does is ended early, not after its whole time."""

WINDOW_S = 20.0
MOST_SHARE = 1 / 3


class DataWait:
    """Counts the seconds that training waits, window by window."""

    def __init__(self, now: float) -> None:
        self._begun = now
        self._waited_s = 0.0

    def add(self, now: float, waited_s: float) -> None:
        """After each wait. Raises RuntimeError when a window is over that was mostly waiting."""
        self._waited_s += waited_s
        seconds = now - self._begun
        if seconds < WINDOW_S:
            return
        if self._waited_s > MOST_SHARE * seconds:
            raise RuntimeError(
                f"training waited for data {self._waited_s:.1f} of the last {seconds:.1f} s "
                f"(at most {MOST_SHARE:.0%} is allowed): the workers make too few batches; "
                "give it more --workers, or find what slows them down"
            )
        self._begun, self._waited_s = now, 0.0
