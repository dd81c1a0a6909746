"""When is a new topology sent to which watcher?"""

import asyncio
import math
import time
from collections.abc import Callable

from protos import router_pb2
from router_svc.mesh import Mesh
from router_svc.streams import Newest, StreamEnd
from rpc.errors import NotReady, Overloaded

MIN_INTERVAL_S = 0.02
"""Changes closer together than this are published as one snapshot."""


class Watcher:
    """One topology stream."""

    def __init__(self, watcher_id: str, *, is_attention: bool, holds_earlier_epoch: bool):
        self.watcher_id = watcher_id
        self.is_attention = is_attention
        self.holds_earlier_epoch = holds_earlier_epoch
        self.topology: Newest[router_pb2.Topology] = Newest()
        self.ending = StreamEnd()
        self.acked = (0, 0)
        self.offered: router_pb2.Topology | None = None


class Publisher:
    """Publishes a snapshot soon after each change; slow watchers get only the newest."""

    def __init__(self, mesh: Mesh, *, max_watchers: int):
        self._mesh = mesh
        self._max_watchers = max_watchers
        self._watchers: set[Watcher] = set()
        self._dirty = asyncio.Event()
        self._dirty.set()
        self.before: Callable[[], None] = lambda: None

    @property
    def num_watchers(self) -> int:
        return len(self._watchers)

    def changed(self) -> None:
        """Say that the mesh may have changed: publish soon."""
        self._dirty.set()

    async def run(self) -> None:
        """Publish changes until cancelled."""
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            self.publish()
            await asyncio.sleep(MIN_INTERVAL_S)

    def publish(self) -> router_pb2.Topology | None:
        """Bring the snapshot up to date, offer it to the watchers, and return it."""
        self.before()
        self._mesh.publish(time.monotonic())
        for watcher in self._watchers:
            self._offer(watcher)
        return self._mesh.book.latest

    def acked_by_attention(self) -> float:
        """The version of this epoch that every live attention service has ACKed.

        Infinite when there is no service. One that has a lease but no stream here has ACKed 0.
        """
        epoch = self._mesh.epoch
        acked: dict[str, float] = {
            member.member_id: 0 for member in self._mesh.members.of_role("attention")
        }
        for watcher in self._watchers:
            if watcher.is_attention:
                counter = watcher.acked[1] if watcher.acked[0] == epoch else 0
                known = acked.get(watcher.watcher_id, 0)
                # A service that reconnected may still have its old stream beside the new one.
                acked[watcher.watcher_id] = max(known, counter)
        return min(acked.values(), default=math.inf)

    def add_watcher(
        self, acked_epoch: int, watcher_id: str = "", *, is_attention: bool = False
    ) -> Watcher:
        """Add a watcher that holds a topology of `acked_epoch` (0: none). Raises Overloaded."""
        if len(self._watchers) >= self._max_watchers:
            raise Overloaded(f"the router serves at most {self._max_watchers} watchers")
        watcher = Watcher(
            watcher_id,
            is_attention=is_attention,
            holds_earlier_epoch=self._mesh.watcher_seen(acked_epoch),
        )
        self._watchers.add(watcher)
        self._offer(watcher)
        return watcher

    def remove_watcher(self, watcher: Watcher) -> None:
        self._watchers.discard(watcher)

    def close(self) -> None:
        for watcher in tuple(self._watchers):
            watcher.ending.end(NotReady("the router is stopping"))

    def _offer(self, watcher: Watcher) -> None:
        """Send the newest snapshot, unless the watcher has it or it removes pools too early."""
        latest = self._mesh.book.latest
        if latest is None or latest is watcher.offered:
            return
        if watcher.holds_earlier_epoch and self._mesh.adopting(time.monotonic()):
            return
        watcher.topology.put(latest)
        watcher.offered = latest
