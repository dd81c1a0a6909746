"""How many files and sockets may this process have open, and which of our limits fit below?

A limit above the process's own has no effect: accept() fails first, for probes too, and asyncio
before Python 3.12 logs each failure with a traceback.
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
"""A service with room for fewer connections does not start."""
ACCEPT_LOG_INTERVAL_S = 10.0
_NO_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
OWN_DESCRIPTORS = 128
"""Reserved for what the service itself opens: files, pipes, connections to other services."""


def raise_open_files() -> None:
    """Raise the soft limit to the hard one: its usual 1024 is for select(), which is not used."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError) as error:  # some kernels do not allow their own hard limit
        log.warning("the limit of open files stays at %d: %s", soft, error)


def open_file_limit() -> int:
    """Most descriptors of this process."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def descriptors_in_use() -> int:
    """Files, sockets and pipes that this process has open."""
    return len(os.listdir("/dev/fd"))


def fitting(wanted: int, what: str, *, beside: int = 0) -> int:
    """`wanted` connections, or as many as fit beside `beside` others of this process; logs when
    lowered.

    Raises ValueError when fewer than LEAST fit.
    """
    limit = open_file_limit()
    kept = min(OWN_DESCRIPTORS, limit // 4) + beside
    room = limit - descriptors_in_use() - kept
    if room < LEAST:
        raise ValueError(
            f"the limit of open files, {limit}, leaves no room for {what}: raise it (ulimit -n, "
            "LimitNOFILE=, --ulimit nofile=)"
        )
    if room < wanted:
        log.warning(
            "%s: %d instead of %d, because at most %d files may be open (ulimit -n)",
            what,
            room,
            wanted,
            limit,
        )
    return min(wanted, room)


class AcceptErrors:
    """An event loop's exception handler that limits how often failing accepts are logged."""

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
                error,
                self._unlogged - 1,
            )
            self._logged_at_s = self._clock()
            self._unlogged = 0
