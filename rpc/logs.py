"""How does an event become a line of a service's log?

A message may contain text from peers: it stays on its line, and lines are cut to a length. Repeated
lines are counted instead of written. Every line that begins with a time is ours: tracebacks, which
may quote peers too, are indented.
"""

import logging
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TextIO

MAX_LINE_CHARS = 4000
MAX_TRACEBACK_LINES = 200
INDENT = "  | "
REPEATS = 50
AUDIT_REPEATS = 5000
"""Most lines of one kind, and of one kind of the audit log, in WINDOW_S."""
WINDOW_S = 10.0
MAX_KINDS = 1000
KIND_CHARS = 48
"""Messages that share this many first characters are one kind: some loggers format them first."""
AUDIT = "audit"
"""Logger for members that join, leave, or are fenced or drained, and for rebalancing."""


def printable(text: str) -> str:
    """The text on one line: characters that are not printable become escapes."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text
    )


def cut(text: str, max_chars: int = MAX_LINE_CHARS) -> str:
    """The text, or its beginning and a note of its length when it is longer than `max_chars`."""
    if len(text) <= max_chars:
        return text
    note = f"... ({len(text)} characters)"
    return text[: max(0, max_chars - len(note))] + note


def quoted(text: str, max_chars: int = 128) -> str:
    """A peer's name for a message: in quotes, on one line, cut to a length."""
    return f"'{printable(cut(text, max_chars))}'"


class LineFormatter(logging.Formatter):
    """One line per event; a traceback on indented lines below it."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        # Cut first to bound the work, and again since an escape has up to ten characters.
        record.message = cut(printable(cut(record.message)))
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:
        return _indented(stack_info)


def _indented(text: str) -> str:
    lines = text.splitlines()
    if len(lines) > MAX_TRACEBACK_LINES:
        half = MAX_TRACEBACK_LINES // 2
        left_out = len(lines) - 2 * half
        lines = [*lines[:half], f"({left_out} lines)", *lines[-half:]]
    return "\n".join(INDENT + printable(cut(line)) for line in lines)


class Repeats(logging.Filter):
    """Lets a limited number of lines of each kind pass in a window, and counts the rest."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        super().__init__()
        self._clock = clock
        self._kinds: OrderedDict[tuple[str, int, str], list[float]] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        """Called with the handler's lock held."""
        now_s = self._clock()
        kind = (record.name, record.levelno, str(record.msg)[:KIND_CHARS])
        window = self._kinds.get(kind)
        if window is None or now_s - window[0] >= WINDOW_S:
            self._kinds.pop(kind, None)
            self._kinds[kind] = window = [now_s, 0]
            if len(self._kinds) > MAX_KINDS:
                self._kinds.popitem(last=False)
        window[1] += 1
        return window[1] <= (AUDIT_REPEATS if record.name == AUDIT else REPEATS)

    def sums(self, *, all_windows: bool = False) -> list[tuple[str, int, str, int]]:
        """(logger, level, kind, lines left out) of each window that is over, once."""
        now_s = self._clock()
        found = []
        for kind, (began_s, count) in list(self._kinds.items()):
            if not all_windows and now_s - began_s < WINDOW_S:
                continue
            del self._kinds[kind]
            left_out = int(count) - (AUDIT_REPEATS if kind[0] == AUDIT else REPEATS)
            if left_out > 0:
                found.append((*kind, left_out))
        return found


class LogHandler(logging.StreamHandler[TextIO]):
    """Writes lines to a stream, and before them how many were left out since."""

    def __init__(self, service: str, stream: TextIO, clock: Callable[[], float] = time.monotonic):
        super().__init__(stream)
        self._repeats = Repeats(clock)
        self.setFormatter(
            LineFormatter(
                f"%(asctime)s %(levelname)s {service} %(message)s", datefmt="%Y-%m-%dT%H:%M:%S"
            )
        )

    def handle(self, record: logging.LogRecord) -> bool:
        with self.lock:  # type: ignore[union-attr]
            self._say_sums()
            if not self._repeats.filter(record):
                return False
            self.emit(record)
        return True

    def close(self) -> None:
        """At the end of the process: write how many lines were left out."""
        self._say_sums(all_windows=True)
        super().close()

    def _say_sums(self, *, all_windows: bool = False) -> None:
        for name, level, kind, count in self._repeats.sums(all_windows=all_windows):
            text = "%d more lines like this within %.0f s: %s"
            arguments = (count, WINDOW_S, kind)
            self.emit(logging.LogRecord(name, level, "", 0, text, arguments, None))


def configure_logging(service: str, level: str) -> None:
    """Log all loggers to stderr, one line per event; called when a service's process begins."""
    logging.basicConfig(level=level.upper(), handlers=[LogHandler(service, sys.stderr)])
    logging.captureWarnings(True)
