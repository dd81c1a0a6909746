"""Which topology is the newest this process has seen?

`TopologyWatcher` follows the router in a task on the service's loop. It takes
the higher (epoch, counter), keeps its topology while the router is down, and
reconnects by itself. It acknowledges only topologies that were taken.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable

import grpc

from protos import router_pb2, router_pb2_grpc
from rpc.channel import Access, check_files, open_channel
from rpc.mesh.lease import backoff_s

log = logging.getLogger(__name__)


def version_of(topology: router_pb2.Topology | None) -> tuple[int, int]:
    """(epoch, counter); (0, 0) for None, lower than every real version."""
    if topology is None:
        return 0, 0
    return topology.version.epoch, topology.version.counter


class TopologyWatcher:
    """Keeps the newest topology and calls back on each change; for one event loop."""

    def __init__(
        self,
        router: str,
        tls: Access | None,
        *,
        watcher_id: str,
        role: "router_pb2.MemberRole" = router_pb2.MEMBER_ROLE_UNSPECIFIED,
        on_change: Callable[[router_pb2.Topology], None] = lambda topology: None,
    ):
        """`role`: ATTENTION for attention services, UNSPECIFIED for other watchers.

        `on_change` runs on the loop with each newer topology. If it raises, that is logged and
        the topology is dropped: the last good one stays, and stays acknowledged.
        """
        self._router = router
        self._tls = tls
        self._watcher_id = watcher_id
        self._role = role
        self._on_change = on_change
        self._task: asyncio.Task[None] | None = None
        self.connected = False
        """Whether the current stream has delivered a topology; `latest` stays valid without."""
        self.latest: router_pb2.Topology | None = None

    async def start(self) -> None:
        """Begin to watch in the background. Raises ValueError for a bad certificate file."""
        check_files(self._tls)
        self._task = asyncio.create_task(self._run(), name="topology-watcher")

    async def stop(self) -> None:
        """End the task and its channel; `latest` stays."""
        if self._task is None:
            return
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._task = None

    async def _run(self) -> None:
        failures, lost = 0, False
        try:
            while True:
                # A channel for each stream: a new one is made with the certificate of that time.
                async with open_channel(
                    self._router, tls=self._tls, server_role="router"
                ) as channel:
                    stub = router_pb2_grpc.RouterStub(channel)
                    reason = await self._follow_one_stream(stub)
                if self.connected or not lost:
                    log.warning(
                        "lost router %s, keeping topology %s: %s",
                        self._router,
                        version_of(self.latest),
                        reason,
                    )
                failures, lost = (0 if self.connected else failures + 1), True
                self.connected = False
                await asyncio.sleep(backoff_s(failures))
        finally:
            self.connected = False

    async def _follow_one_stream(self, stub: router_pb2_grpc.RouterStub) -> str:
        """Watch until the stream ends; returns the reason."""
        call = stub.WatchTopology()
        try:
            await call.write(self._request())
            while True:
                response = await call.read()
                if response is grpc.aio.EOF:
                    return "the router ended the stream"
                if not self.connected:
                    self.connected = True
                    log.info("watching router %s", self._router)
                self._take(response.topology)
                await call.write(self._request())
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name}: {error.details()}"
        except asyncio.InvalidStateError:  # written to just after it had ended
            return "the router ended the stream"
        finally:
            call.cancel()

    def _request(self) -> router_pb2.WatchTopologyRequest:
        """What this watcher holds: both the first frame and each ACK."""
        return router_pb2.WatchTopologyRequest(
            watcher_id=self._watcher_id,
            role=self._role,
            acked=self.latest.version if self.latest is not None else None,
        )

    def _take(self, topology: router_pb2.Topology) -> None:
        version, former = version_of(topology), version_of(self.latest)
        if version <= former:
            return
        try:
            self._on_change(topology)
        except ValueError as error:
            log.error("topology %s is unusable, keeping %s: %s", version, former, error)
        except Exception:  # a bug of the callback must not end the watcher
            log.exception("topology %s could not be taken, keeping %s", version, former)
        else:
            self.latest = topology
