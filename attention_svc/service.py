"""How does an attention service run? Load, join, follow the topology, serve, leave."""

import asyncio
import logging
import time

from attention_svc.activations import ActivationCounts
from attention_svc.config import AttentionConfig
from attention_svc.experts.over_grpc import GrpcTransport
from attention_svc.experts.probing import Prober
from attention_svc.loaded import LoadedModel
from attention_svc.membership import Membership
from attention_svc.metrics import AttentionMetrics
from attention_svc.reporting import follow_readiness, report
from attention_svc.running import STOPPING, RunningEngine
from moe_model.device_failures import in_one_line, is_fatal
from moe_model.gpus import used_bytes
from moe_model.numerics import dtype_name
from protos import attention_pb2, attention_pb2_grpc, router_pb2
from rpc.access.guard import CallBounds
from rpc.config import PROTOCOL_MAJOR, PROTOCOL_MINOR, Address
from rpc.metrics import export_certificate_expiry, export_device_memory
from rpc.process.ops_http import OpsServer
from rpc.process.server import GrpcHost, until_stopped
from rpc.process.service_config import default_member_id

log = logging.getLogger(__name__)

SERVICE = attention_pb2.DESCRIPTOR.services_by_name["Attention"].full_name


class AttentionService:
    """One attention process. `run` returns the exit status."""

    def __init__(self, config: AttentionConfig):
        """Opens and checks the checkpoint. Raises ValueError with a one-line reason."""
        self._config = config
        self._model = LoadedModel(config)
        shape = self._model.config
        self._activations = ActivationCounts(shape.num_layers, shape.num_experts)
        self._metrics = AttentionMetrics(self._activations)
        if config.tls is not None:
            export_certificate_expiry(self._metrics.registry, config.tls.expires_at_s)
        gpu = self._model.place.gpu
        if gpu is not None:
            export_device_memory(
                self._metrics.registry,
                gpu.device,
                total_bytes=gpu.total_bytes,
                used_bytes=lambda: used_bytes(gpu.device),
            )
        sequences = config.max_running + config.max_waiting
        self._host = GrpcHost(
            config.listen_address,
            tls=config.tls,
            secret=config.secret,
            reflection=config.reflection,
            # The scheduler refuses first, with the better reason; several gateways share the total.
            bounds=CallBounds(per_connection=2 * sequences + 256, total=8 * sequences + 1024),
        )
        self._failure = asyncio.Event()
        self._running: RunningEngine | None = None
        self._membership: Membership | None = None

    async def run(self) -> int:
        """Serve until a signal (0) or a final refusal (1)."""
        ops = OpsServer(
            Address.parse(self._config.ops_listen, "--ops-listen"),
            self._metrics.registry,
            self.readiness,
            # Tokens routed to each expert since start, by layer.
            {"/experts/load": lambda: {"layers": self._activations.counts.tolist()}},
            hosts=self._config.ops_host,
        )
        ops.start()
        self._host.bind()
        # Where to ask how far it is; gRPC is served only when all is loaded.
        log.info(
            "loading, listening ops=%s:%d",
            Address.parse(self._config.ops_listen).host,
            ops.port,
        )
        own_id = self._config.attention_id or default_member_id("attention", self._host.port)
        try:
            running = await asyncio.to_thread(
                RunningEngine, self._config, self._model, self._activations, self._metrics, own_id
            )
        except Exception as error:
            if not is_fatal(error):
                raise
            self._log_failure("loading failed", error)
            ops.stop()
            return 1
        attention_pb2_grpc.add_AttentionServicer_to_server(running.servicer, self._host.server)
        await self._host.start([SERVICE])
        running.watchdog.start()
        self._announce(running, ops)  # before it is ready: whoever waits for it reads this line
        self._running = running
        engine_task = running.start()
        tasks = [
            engine_task,
            asyncio.create_task(follow_readiness(self.readiness, self._host)),
            asyncio.create_task(report(running.engine)),
        ]
        if isinstance(running.transport, GrpcTransport):
            model = self._model
            prober = Prober(
                running.transport.context, model.config.hidden_size, model.backend.dtype
            )
            tasks.append(asyncio.create_task(prober.run()))
        if self._config.router:
            self._membership = self._join(running, ops)
            await self._membership.start()
        stopped = asyncio.create_task(
            until_stopped(
                lambda: self._drain(running),
                lambda: running.engine.abort_all(STOPPING),
                reload=self._config.reload,
            )
        )
        failed = asyncio.create_task(self._failure.wait())
        await asyncio.wait({stopped, failed, engine_task}, return_when=asyncio.FIRST_COMPLETED)
        if engine_task.done():
            # Serving without an engine would be worse than no service: exit, to be restarted.
            self._log_failure("the engine stopped", engine_task.exception())
            self._failure.set()
        if self._membership is not None:
            await self._membership.stop()
        await self._host.stop(0.5)
        for task in (*tasks, stopped, failed):
            task.cancel()
        await running.close()
        ops.stop()
        return 1 if self._failure.is_set() else 0

    def _log_failure(self, what: str, error: BaseException | None) -> None:
        """One line if memory or the device failed; our bugs with all that is known."""
        if error is not None and is_fatal(error):
            log.critical("%s on %s: %s", what, self._model.place.device, in_one_line(error))
        else:
            log.critical(what, exc_info=error)

    def readiness(self) -> tuple[bool, str]:
        """(ready to generate, the reason when not); any thread."""
        if self._running is not None:
            return self._running.readiness()
        return False, f"loading, {self._model.loading}"

    def _announce(self, running: RunningEngine, ops: OpsServer) -> None:
        """Log and export what is served, and how."""
        model, kernel = self._model, self._model.kernel
        self._metrics.info.labels(running.own_id, kernel.id, model.checkpoint_id).set(1)
        log.info(
            "%s: %s on %s, %s linears%s, %d threads, %s experts, context %d, %d KV blocks, "
            "listening grpc=%s ops=%s:%d",
            running.own_id,
            dtype_name(model.backend.dtype),
            model.backend.device,
            kernel.id,
            f" ({kernel.why})" if kernel.why else "",
            model.num_threads,
            self._config.transport,
            model.max_len,
            model.num_blocks,
            self._host.address,
            Address.parse(self._config.ops_listen).host,
            ops.port,
        )

    def _join(self, running: RunningEngine, ops: OpsServer) -> Membership:
        """This service as a member of the mesh; not started yet."""
        advertise = self._config.advertise or str(self._host.address)
        loop = asyncio.get_running_loop()

        def on_refused(reason: str) -> None:
            loop.call_soon_threadsafe(self._failure.set)

        return Membership(
            self._config.router,
            self._config.access,
            router_pb2.Register(
                role=router_pb2.MEMBER_ROLE_ATTENTION,
                member_id=running.own_id,
                incarnation=running.incarnation,
                address=advertise,
                checkpoint_id=self._model.checkpoint_id,
                numerics_id=self._model.kernel.id,
                num_layers=self._model.config.num_layers,
                num_experts=self._model.config.num_experts,
                protocol_major=PROTOCOL_MAJOR,
                protocol_minor=PROTOCOL_MINOR,
                metrics_address=f"{Address.parse(advertise).host}:{ops.port}",
            ),
            is_draining=lambda: running.draining,
            scheduler=running.engine.scheduler,
            activations=self._activations,
            metrics=self._metrics,
            pools=running.pools,
            on_refused=on_refused,
        )

    async def _drain(self, running: RunningEngine) -> None:
        """Take no new requests; gateways move running ones to other services if there are any.

        The rest get the grace period, then end with a reason.
        """
        running.draining = True
        await self._host.set_serving(False)
        if self._membership is not None:
            self._membership.poke()
        deadline = time.monotonic() + self._config.grace_s
        while not running.engine.idle and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        running.engine.abort_all(STOPPING)
