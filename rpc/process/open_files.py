"""How many files and sockets may this process have open, and which caps of ours fit below?

A cap above the process's own limit is none: accept() fails first, for probes as for everybody, and
asyncio before Python 3.12 logs each failure with a traceback.
"""

import asyncio
import errno
import logging
import math
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

log = logging.getLogger(__name__)

LEAST = 8
"""Fewer connections than these are no service."""
ACCEPT_LOG_INTERVAL_S = 10.0
_NO_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
OWN_DESCRIPTORS = 128
"""For what the service itself opens later: files, pipes, connections to other services."""


def raise_open_files() -> None:
    """Lift the soft limit to the hard one: it stands at 1024 for the sake of select(), unused here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError) as error:  # some kernels call a hard limit what they do not allow
        log.warning("the limit of open files stays at %d: %s", soft, error)


def open_file_limit() -> int:
    """Most descriptors of this process."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def fitting(wanted: int, what: str, *, beside: int = 0) -> int:
    """`wanted` connections, or as many as fit next to `beside` others of ours; logs when lowered.

    Raises ValueError when hardly any fit.
    """
    limit = open_file_limit()
    kept = min(OWN_DESCRIPTORS, limit // 4) + beside
    room = limit - len(os.listdir("/dev/fd")) - kept
    if room < LEAST:
        raise ValueError(
            f"the limit of open files, {limit}, leaves no room for {what}: raise it (ulimit -n, "
            "LimitNOFILE=, --ulimit nofile=)"
        )
    if room < wanted:
        log.warning(
            "%s: %d instead of %d, because at most %d files may be open (ulimit -n)",
            what, room, wanted, limit,
        )  # fmt: skip
    return min(wanted, room)


class AcceptErrors:
    """An event loop's exception handler: failing accepts are told now and then, the rest as usual."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._logged_at_s = -math.inf
        self._unlogged = 0

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if "socket" not in context or getattr(error, "errno", None) not in _NO_RESOURCES:
            loop.default_exception_handler(context)
            return
        self._unlogged += 1
        if self._clock() - self._logged_at_s >= ACCEPT_LOG_INTERVAL_S:
            log.error(
                "cannot accept connections: %s (%d more since the last such line)",
                error, self._unlogged - 1,
            )  # fmt: skip
            self._logged_at_s = self._clock()
            self._unlogged = 0
