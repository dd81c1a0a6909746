"""How do the router's parts fit together, start and stop?"""

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor

from prometheus_client import CollectorRegistry

from protos import router_pb2, router_pb2_grpc
from router_svc.config import RouterConfig
from router_svc.joining import Joining
from router_svc.members.epoch import Drains, next_epoch
from router_svc.mesh import Mesh
from router_svc.metrics import RouterMetrics
from router_svc.publisher import Publisher
from router_svc.servicer import RouterServicer
from router_svc.status import service_discovery, status_line
from router_svc.streams import until_first
from rpc.config import Address
from rpc.metrics import export_certificate_expiry
from rpc.process.ops_http import OpsServer
from rpc.process.server import GrpcHost, until_stopped

log = logging.getLogger(__name__)

SERVICE = router_pb2.DESCRIPTOR.services_by_name["Router"].full_name
MAX_FRAME_BYTES = 4 * 1024 * 1024
STATUS_INTERVAL_S = 5.0
TEND_INTERVAL_S = 0.25
STOP_GRACE_S = 1.0


class RouterService:
    """One router; create it on the event loop that it will run on."""

    def __init__(self, config: RouterConfig):
        """Takes the next epoch. Raises ValueError on a bad state or certificate file."""
        tls = config.tls
        self._host = GrpcHost(
            config.listen_address,
            tls=tls,
            secret=config.secret,
            reflection=config.reflection,
            max_receive_bytes=MAX_FRAME_BYTES,
        )
        epoch, restarted = next_epoch(config.state, clock_ms=lambda: time.time_ns() // 1_000_000)
        self._planner = ThreadPoolExecutor(1, thread_name_prefix="planner")
        self.mesh = Mesh(
            epoch=epoch,
            restarted=restarted,
            lease_s=config.lease_ms / 1000,
            adopt_s=config.adopt_ms / 1000,
            max_members=config.max_members,
            checkpoint_id=config.checkpoint_id,
            now_s=time.monotonic(),
            rules=config.placement,
            drains=Drains(config.state),
            executor=self._planner,
        )
        self._loop = asyncio.get_running_loop()
        self.mesh.placing.planning.when_done = self._planned
        registry = CollectorRegistry()
        self._metrics = RouterMetrics(registry)
        if tls is not None:
            export_certificate_expiry(registry, tls.expires_at_s)
        self._publisher = Publisher(self.mesh, max_watchers=config.max_members)
        self._joining = Joining(
            self.mesh,
            self._publisher,
            self._metrics,
            tls=tls is not None,
            has_secret=config.secret is not None,
            rules=config.address_rules,
            access=config.access,
        )
        servicer = RouterServicer(
            self.mesh,
            self._publisher,
            self._joining,
            max_streams=2 * config.max_members + 16,
        )
        router_pb2_grpc.add_RouterServicer_to_server(servicer, self._host.server)
        self._reload = config.reload
        self._stopping = False
        self._ops_listen = config.ops_address
        self._ops = OpsServer(
            self._ops_listen,
            registry,
            readiness=lambda: (not self._stopping, "stopping" if self._stopping else ""),
            pages={
                "/sd": lambda: service_discovery(self.mesh),
                "/experts/load": self.mesh.activations.page,
            },
            hosts=config.ops_host,
        )

    @property
    def address(self) -> Address:
        """Where gRPC listens, once started."""
        return self._host.address

    @property
    def ops_address(self) -> Address:
        """Where HTTP listens, once started."""
        return Address(host=self._ops_listen.host, port=self._ops.port)

    async def start(self) -> None:
        """Bind and serve. Raises ValueError when a port is taken."""
        self._ops.start()
        await self._host.start([SERVICE])
        await self._host.set_serving(True)
        log.info(
            "epoch %d; listening grpc=%s ops=%s", self.mesh.epoch, self.address, self.ops_address
        )

    async def run(self) -> int:
        """Serve until a signal (0)."""
        await self.start()
        log.info("ready")
        await until_first(self.work(), until_stopped(self.stop, reload=self._reload))
        return 0

    async def work(self) -> None:
        """Publish topologies and check leases until cancelled."""
        await until_first(self._publisher.run(), self._tend())

    async def stop(self) -> None:
        """End all streams and close the ports."""
        self._stopping = True
        self._joining.close()
        self._publisher.close()
        await self._host.stop(STOP_GRACE_S)
        self._ops.stop()
        self._planner.shutdown(wait=False, cancel_futures=True)

    def _planned(self) -> None:
        """Called on the planner's thread when a plan is done: have the loop take it."""
        if not self._stopping:
            self._loop.call_soon_threadsafe(self._publisher.changed)

    async def _tend(self) -> None:
        """Check leases, update the gauges and log the status line, several times per lease."""
        interval_s = min(TEND_INTERVAL_S, self.mesh.lease_s / 4)
        logged_at_s = time.monotonic()
        while True:
            self._joining.sweep()
            self._metrics.observe(self.mesh, self._publisher.num_watchers)
            if time.monotonic() - logged_at_s >= STATUS_INTERVAL_S:
                logged_at_s = time.monotonic()
                log.info("%s", status_line(self.mesh, self._publisher.num_watchers))
            await asyncio.sleep(interval_s)
