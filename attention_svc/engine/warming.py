"""Run through the kinds of steps once, before any request, and say how far that is."""

import logging
import time
from collections.abc import Callable, Iterator

log = logging.getLogger(__name__)

LOG_INTERVAL_S = 2.0


def warm_up(
    left: Iterator[int],
    *,
    clock: Callable[[], float] = time.monotonic,
    show: Callable[[str], None] = log.info,
) -> None:
    """`left`: see WholeSteps.warm_up. Shows a line now and then, and one at the end if any ran."""
    start_s = shown_s = clock()
    total = 0
    for kinds in left:
        total = max(total, kinds)
        now_s = clock()
        if now_s - shown_s >= LOG_INTERVAL_S:
            shown_s = now_s
            show(f"compiling kernels, {kinds} of {total} kinds of steps left")
    if total:
        show(f"ready for {total} kinds of steps after {clock() - start_s:.1f} s")
