"""What do some files hold now? Read again when they change; what cannot be used is not taken."""

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

Value = TypeVar("Value")
Stamps = tuple[tuple[int, int, int] | None, ...]

SETTLE_S = 1.0
"""Files that belong together are replaced one after the other: bad ones are told of after this."""


class Watched(Generic[Value]):
    """The value of some files; from any thread.

    Each `get` looks at the files' times, which takes microseconds. A new value is taken as a
    whole, and only when it can be read; otherwise the old one stays, and the reason is logged
    once for each change.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        read: Callable[[], Value],
        *,
        what: str,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Reads at once; `read` raises ValueError for what cannot be used. `what`: for the log."""
        self._paths = tuple(paths)
        self._read = read
        self._what = what
        self._clock = clock
        self._lock = threading.Lock()
        self._stamps = self._look()
        self._value = read()
        self._bad_since_s: float | None = None
        self._told = True
        self.changes = 0

    def get(self) -> Value:
        """The newest usable value."""
        with self._lock:
            self._refresh(settle_s=SETTLE_S)
            return self._value

    def reload(self) -> None:
        """Somebody says that the files are new: look, and say at once what is wrong with them."""
        with self._lock:
            self._refresh(settle_s=0.0)

    def _refresh(self, settle_s: float) -> None:
        stamps = self._look()
        if stamps == self._stamps and self._told:
            return
        now_s = self._clock()
        if stamps != self._stamps:
            self._stamps, self._told, self._bad_since_s = stamps, False, now_s
        assert self._bad_since_s is not None
        try:
            value = self._read()
        except ValueError as error:
            if now_s - self._bad_since_s >= settle_s:
                self._told = True
                log.error(
                    "%s: the new files are not used, the old ones stay: %s", self._what, error
                )
            return
        self._told = True
        if value != self._value:
            self._value = value
            self.changes += 1
            log.info("%s: read again", self._what)

    def _look(self) -> Stamps:
        return tuple(_stamp(path) for path in self._paths)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Changes with every write and replacement; None for what cannot be looked at."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
