"""When may a pool that was told to stop really stop?

A member of a mesh stops when the router says that its pieces are no longer called, or when
its grace period ends. Without a router, or while it cannot be reached, the pool stops when
no call has come for a moment.
"""

import asyncio
import logging
import time

from expert_svc.executor import Executor
from expert_svc.servicer import ExpertServicer
from rpc.mesh.lease import Lease
from rpc.mesh.pieces import Pieces

log = logging.getLogger(__name__)

QUIET_S = 0.5
"""Without a router: a draining pool that gets no call for this long may stop."""
POLL_S = 0.02


class Leaving:
    """The router's last assignment to a leaving pool, and the wait until others have taken over."""

    def __init__(self) -> None:
        self._needed: Pieces | None = None
        self._only_here = Pieces()

    def tell(self, needed: Pieces, only_here: Pieces) -> None:
        """Note the pieces that are still called here, and those that no other pool holds."""
        self._needed, self._only_here = needed, only_here

    async def wait(
        self, servicer: ExpertServicer, executor: Executor, lease: Lease | None, grace_s: float
    ) -> None:
        """Wait until the pool may stop; logs the pieces that then have no other holder."""
        deadline_s = time.monotonic() + grace_s
        calls, quiet_since_s = servicer.calls_total, time.monotonic()
        while (now_s := time.monotonic()) < deadline_s:
            busy = executor.waiting or any(stream.inflight for stream in servicer.streams)
            if busy or servicer.calls_total != calls:
                calls, quiet_since_s = servicer.calls_total, now_s
            elif lease is not None and lease.joined:
                if self._needed is not None and not self._needed:
                    return
            elif now_s - quiet_since_s > QUIET_S or not servicer.streams:
                return
            await asyncio.sleep(POLL_S)
        if self._only_here:
            log.warning(
                "the grace period ends with pieces that no other pool holds: %s",
                self._only_here.describe(),
            )
        else:
            log.warning("the grace period ends with callers that still need this pool")
