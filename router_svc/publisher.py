"""When does which watcher get which topology?"""

import asyncio
import time

from protos import router_pb2
from router_svc.mesh import Mesh
from router_svc.streams import Ending, Newest
from rpc.errors import NotReady, Overloaded

MIN_INTERVAL_S = 0.02
"""Changes closer together than this travel as one snapshot."""


class Watcher:
    """One topology stream."""

    def __init__(self, *, holds_earlier_epoch: bool):
        self.holds_earlier_epoch = holds_earlier_epoch
        self.topology: Newest[router_pb2.Topology] = Newest()
        self.ending = Ending()
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

    @property
    def num_watchers(self) -> int:
        return len(self._watchers)

    def changed(self) -> None:
        """The mesh may have changed: publish soon."""
        self._dirty.set()

    async def run(self) -> None:
        """Publish changes for ever."""
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            self.publish()
            await asyncio.sleep(MIN_INTERVAL_S)

    def publish(self) -> router_pb2.Topology | None:
        """Bring the snapshot up to date, offer it to the watchers, and return it."""
        self._mesh.publish(time.monotonic())
        for watcher in self._watchers:
            self._offer(watcher)
        return self._mesh.book.latest

    def add_watcher(self, acked_epoch: int) -> Watcher:
        """A watcher that holds a topology of `acked_epoch` (0: none). Raises Overloaded."""
        if len(self._watchers) >= self._max_watchers:
            raise Overloaded(f"the router serves at most {self._max_watchers} watchers")
        watcher = Watcher(holds_earlier_epoch=self._mesh.watcher_seen(acked_epoch))
        self._watchers.add(watcher)
        self._offer(watcher)
        return watcher

    def remove_watcher(self, watcher: Watcher) -> None:
        self._watchers.discard(watcher)

    def close(self) -> None:
        for watcher in tuple(self._watchers):
            watcher.ending.end(NotReady("the router is stopping"))

    def _offer(self, watcher: Watcher) -> None:
        """Hand over the newest snapshot, unless it is known or would take pools away too early."""
        latest = self._mesh.book.latest
        if latest is None or latest is watcher.offered:
            return
        if watcher.holds_earlier_epoch and self._mesh.adopting(time.monotonic()):
            return
        watcher.topology.put(latest)
        watcher.offered = latest
