"""What do some files contain now? They are read again when they change, and kept if unusable."""

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
"""Bad files are logged only after this: files that belong together are replaced one by one."""


class Watched(Generic[Value]):
    """The value of some files, for any thread.

    Each `get` checks the files' times, which takes microseconds. A new value replaces the old one
    only if all of it can be read; otherwise the old one stays, and the reason is logged
    once per change.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        read: Callable[[], Value],
        *,
        what: str,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Reads the files now. `read` raises ValueError for unusable files; `what`: for the log."""
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
        """Check the files now; if they are unusable, log it without waiting for SETTLE_S."""
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
    """Changes with every write and replacement; None for a file that cannot be read."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
