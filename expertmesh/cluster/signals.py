"""What do Ctrl-C and SIGTERM do to a running cluster? The first stops it, the second kills."""

import signal
import threading
from types import FrameType
from typing import Any


class StopSignals:
    """A context in which SIGINT, SIGTERM and SIGHUP set events instead of raising."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.kill = threading.Event()
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.stop.is_set():
            self.kill.set()
        self.stop.set()
