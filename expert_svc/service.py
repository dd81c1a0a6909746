"""How does a pool live? It joins, is told what to hold, loads, announces, serves, leaves."""

import asyncio
import logging
import time

from expert_svc.canary import Canary
from expert_svc.capacity import Capacity
from expert_svc.compute import run_call
from expert_svc.config import ExpertConfig
from expert_svc.executor import Executor
from expert_svc.holding import Holding
from expert_svc.leaving import Leaving
from expert_svc.metrics import ExpertMetrics
from expert_svc.servicer import ExpertServicer, PoolIdentity
from expert_svc.speed import measure_experts_per_s
from expert_svc.weight_store import WeightStore, available
from moe_model.backends.choice import choose_backend
from moe_model.device_failures import in_one_line, is_fatal
from moe_model.gpus import use, used_bytes
from moe_model.numerics import DTYPES, dtype_name
from moe_model.weights.load_flag import parse_load
from moe_model.weights.open import make_on, open_weights
from protos import expert_pb2, router_pb2
from rpc.config import PROTOCOL_MAJOR, PROTOCOL_MINOR, Address, max_rows_per_message
from rpc.hop.codec import HopCodec
from rpc.mesh.lease import Lease
from rpc.mesh.pieces import Pieces, parse_ranges
from rpc.metrics import export_certificate_expiry, export_device_memory
from rpc.process.load_progress import LoadProgress
from rpc.process.ops_http import OpsServer
from rpc.process.server import GrpcHost, until_stopped
from rpc.process.service_config import default_member_id

log = logging.getLogger(__name__)

UNLOAD_WAIT_S = 10.0
"""How long unloading waits for calls in flight; each has a deadline of its own."""
SERVICE = expert_pb2.DESCRIPTOR.services_by_name["ExpertPool"].full_name


class ExpertService:
    """One pool process. `run` returns the exit status."""

    def __init__(self, config: ExpertConfig):
        """Opens and checks the checkpoint. Raises ValueError with a one-line message."""
        self._config = config
        weights, manifest = open_weights(config.model, partial=True, load=parse_load(config.load))
        self._model = weights.config
        self._available = available(weights)
        self._requested = self._parse_requested()
        alone = Pieces() if config.router else self._available
        capacity = Capacity(config, self._model, self._requested or alone)
        self._capacity = capacity.num_pieces
        place = capacity.place
        log.info("computing on %s", place)
        log.info("%s", capacity)
        make_on(weights, place.device)
        use(place.device)
        backend = choose_backend(DTYPES[place.formats.compute_dtype], place.device)
        self._threads = backend.set_threads(config.threads)
        self._store = WeightStore(weights, manifest, backend, place.formats.experts)
        self._metrics = ExpertMetrics()
        self._executor = Executor(
            lambda call: run_call(call, self._store),
            inline_rows=self._store.calls.inline_rows,
            device=place.device,
        )
        gpu = place.gpu
        if gpu is not None:
            export_device_memory(
                self._metrics.registry,
                gpu.device,
                total_bytes=gpu.total_bytes,
                used_bytes=lambda: used_bytes(gpu.device),
            )
        if config.tls is not None:
            export_certificate_expiry(self._metrics.registry, config.tls.expires_at_s)
        self._host = GrpcHost(
            config.listen_address,
            tls=config.tls,
            secret=config.secret,
            reflection=config.reflection,
        )
        self._checkpoint_id = manifest.checkpoint_id
        self._kernel = backend.numerics(self._store.weight_format)
        self._experts_per_s = config.experts_per_s
        if config.router and not self._requested and not self._experts_per_s:
            self._experts_per_s = measure_experts_per_s(
                self._model,
                self._store.weight_format,
                backend,
                most_experts=self._capacity or len(self._available),
            )
        self._metrics.experts_per_s.set(self._experts_per_s)
        self._metrics.waiting.set_function(lambda: self._executor.waiting)
        self._state = router_pb2.MEMBER_STATE_LOADING
        self._progress = 0.0
        self._loading: LoadProgress | None = None
        self._failure = asyncio.Event()
        self._last_busy = (time.monotonic(), 0.0)
        self._lease: Lease | None = None

    async def run(self) -> int:
        """Serve until a signal (0), or a final refusal or a failure of memory or device (1)."""
        self._loop = asyncio.get_running_loop()
        self._leaving = Leaving()
        self._holding = Holding(
            self._store,
            calls_done=self._calls_done,
            changed=self._announce,
            progress=self._show_progress,
        )
        ops = OpsServer(
            self._config.ops_address,
            self._metrics.registry,
            self._ready,
            hosts=self._config.ops_host,
        )
        ops.start()
        self._host.bind()
        advertise = self._config.advertise or str(self._host.address)
        identity = PoolIdentity(
            pool_id=self._config.pool_id or default_member_id("expert", self._host.port),
            incarnation=time.time_ns() // 1_000_000,
            checkpoint_id=self._checkpoint_id,
            numerics_id=self._kernel.id,
        )
        canary = Canary(self._store, self._executor, self._metrics, period_s=self._config.canary_s)
        self._servicer = ExpertServicer(
            identity,
            self._store,
            self._executor,
            self._metrics,
            HopCodec.best(),
            max_rows=max_rows_per_message(self._model.hidden_size, self._model.top_k),
            try_experts=canary.try_now,
        )
        self._servicer.add_to(self._host.server)
        await self._host.start([SERVICE])
        self._metrics.info.labels(identity.pool_id, self._kernel.id, self._checkpoint_id).set(1)
        log.info(
            "pool %s: %s rows, %s weights%s, %s threads, %.4g experts/s, %s pieces available,"
            " listening grpc=%s ops=%s:%d",
            identity.pool_id,
            dtype_name(self._store.dtype),
            self._kernel.id,
            f" ({self._kernel.why})" if self._kernel.why else "",
            self._threads,
            self._experts_per_s,
            len(self._available),
            self._host.address,
            self._config.ops_address.host,
            ops.port,
        )
        executor_task = asyncio.create_task(self._executor.run())
        holding_task = asyncio.create_task(self._holding.run())
        canary_task = asyncio.create_task(canary.run())
        work = (executor_task, holding_task, canary_task)  # each ends only by failing
        report = asyncio.create_task(self._report())
        if self._config.router:
            self._lease = self._join(identity, advertise, ops)
        else:
            self._holding.tell(self._requested or self._available, 0)
        stopped = asyncio.create_task(until_stopped(self._drain, reload=self._config.reload))
        failed = asyncio.create_task(self._failure.wait())
        await asyncio.wait({stopped, failed, *work}, return_when=asyncio.FIRST_COMPLETED)
        if any(task.done() for task in work):
            self._failure.set()
        if holding_task.done():
            # A bad file or no memory: there is nothing to serve, so stop loudly.
            self._log_failure(logging.ERROR, "loading failed", holding_task.exception())
        if executor_task.done():
            # The pool would look healthy while queued calls wait for ever: exit, to be restarted.
            error = executor_task.exception()
            self._log_failure(logging.CRITICAL, "the executor stopped", error)
        if canary_task.done():
            # Answers would be wrong unnoticed: exit, so that the next process loads and verifies.
            log.critical("weights or device are damaged: %s", canary_task.exception())
        if self._lease is not None:
            # No Leave after a failure: the router counts how often this pool crashes.
            await asyncio.to_thread(self._lease.stop, goodbye=not self._failure.is_set())
        await self._host.stop(0.2)
        for task in (*work, report, stopped, failed):
            task.cancel()
        ops.stop()
        self._executor.close()
        return 1 if self._failure.is_set() else 0

    def _log_failure(self, level: int, what: str, error: BaseException | None) -> None:
        """One line for bad files, and if memory or the device failed; our bugs in full."""
        if error is not None and is_fatal(error):
            log.log(level, "%s on %s: %s", what, self._store.device, in_one_line(error))
        else:
            ours = None if isinstance(error, ValueError) else error
            log.log(level, "%s: %s", what, error, exc_info=ours)

    def _parse_requested(self) -> Pieces:
        config, model = self._config, self._model
        if not config.layers and not config.experts:
            return Pieces()
        layers = (
            parse_ranges(config.layers, "--layers", model.num_layers)
            if config.layers
            else range(model.num_layers)
        )
        experts = (
            parse_ranges(config.experts, "--experts", model.num_experts)
            if config.experts
            else range(model.num_experts)
        )
        requested = Pieces.grid(layers, experts)
        missing = requested - self._available
        if missing:
            layer_idx, expert_id = next(iter(missing))
            raise ValueError(
                f"--layers/--experts: {config.model} holds no weights of layer {layer_idx} expert "
                f"{expert_id} ({len(missing)} such pieces)"
            )
        return requested

    def _ready(self) -> tuple[bool, str]:
        if self._state == router_pb2.MEMBER_STATE_READY:
            return True, ""
        if self._state == router_pb2.MEMBER_STATE_DRAINING:
            return False, "draining"
        return False, f"loading, {self._loading or '0 %'}"

    def _join(self, identity: PoolIdentity, advertise: str, ops: OpsServer) -> Lease:
        register = router_pb2.Register(
            role=router_pb2.MEMBER_ROLE_POOL,
            member_id=identity.pool_id,
            incarnation=identity.incarnation,
            address=advertise,
            checkpoint_id=self._checkpoint_id,
            numerics_id=self._kernel.id,
            num_layers=self._model.num_layers,
            num_experts=self._model.num_experts,
            protocol_major=PROTOCOL_MAJOR,
            protocol_minor=PROTOCOL_MINOR,
            offer=router_pb2.PoolOffer(
                available=self._available.to_message(),
                requested=self._requested.to_message(),
                capacity_pieces=self._capacity,
                piece_bytes=self._store.piece_bytes,
                experts_per_s=self._experts_per_s,
            ),
            metrics_address=f"{Address.parse(advertise).host}:{ops.port}",
        )
        lease = Lease(
            self._config.router,
            self._config.access,
            register,
            self._status,
            self._assigned,
            # A final refusal, on the lease's thread; it is logged there.
            lambda reason: self._loop.call_soon_threadsafe(self._failure.set),
        )
        lease.start()
        return lease

    def _assigned(self, assignment: router_pb2.Assignment) -> None:
        """Called on the lease's thread: hand the assignment over to the loop."""
        sizes = {"num_layers": self._model.num_layers, "num_experts": self._model.num_experts}
        try:
            hold = Pieces.from_message(assignment.hold, **sizes, field="assignment.hold")
            only_here = Pieces.from_message(
                assignment.only_here, **sizes, field="assignment.only_here"
            )
        except ValueError as error:
            log.error("unusable assignment: %s", error)
            return

        def take() -> None:
            if self._state == router_pb2.MEMBER_STATE_DRAINING:
                self._leaving.tell(hold, only_here)
            else:
                self._holding.tell(hold, assignment.version)

        self._loop.call_soon_threadsafe(take)

    async def _announce(self) -> None:
        """Report that the held pieces have changed."""
        self._progress = 1.0
        if self._state == router_pb2.MEMBER_STATE_LOADING:
            self._state = router_pb2.MEMBER_STATE_READY
            await self._host.set_serving(True)
        self._metrics.pieces.set(len(self._store.pieces))
        self._metrics.weight_bytes.set(self._store.size_bytes)
        if self._lease is not None:
            self._lease.poke()

    def _show_progress(self, loading: LoadProgress) -> None:
        self._loading, self._progress = loading, loading.ratio
        self._metrics.load_progress.set(loading.ratio)

    async def _calls_done(self) -> None:
        """Wait until the calls that are in flight now are answered, at most UNLOAD_WAIT_S."""
        calls = [(stream, set(stream.inflight)) for stream in self._servicer.streams]
        deadline_s = time.monotonic() + UNLOAD_WAIT_S
        while any(ids & set(stream.inflight) for stream, ids in calls):
            if time.monotonic() > deadline_s:
                log.warning("unloading although calls of %g s ago are unanswered", UNLOAD_WAIT_S)
                return
            await asyncio.sleep(0.01)

    def _status(self) -> router_pb2.MemberStatus:
        """The status for the router. Called on the lease's thread, so it only reads."""
        now_s, busy_s = time.monotonic(), self._executor.busy_s
        last_s, last_busy_s = self._last_busy
        self._last_busy = (now_s, busy_s)
        return router_pb2.MemberStatus(
            ready=self._store.pieces.to_message()
            if self._state != router_pb2.MEMBER_STATE_LOADING
            else None,
            state=self._state,
            busy_ratio=min(1.0, (busy_s - last_busy_s) / max(now_s - last_s, 1e-3)),
            queued=self._executor.waiting,
            acked_assignment=self._holding.acked,
            load_progress_ratio=self._progress,
        )

    async def _report(self) -> None:
        """Log a status line every 5 s while calls come."""
        last_calls, last_busy_s = 0, 0.0
        while True:
            await asyncio.sleep(5)
            calls, busy_s = self._servicer.calls_total, self._executor.busy_s
            if calls != last_calls:
                log.info(
                    "%.0f calls/s, busy %.0f %%, %d waiting, %d callers",
                    (calls - last_calls) / 5,
                    20 * (busy_s - last_busy_s),
                    self._executor.waiting,
                    len(self._servicer.streams),
                )
            last_calls, last_busy_s = calls, busy_s

    async def _drain(self) -> None:
        """Announce the end, and serve until others have taken over or the grace period ends."""
        self._state = router_pb2.MEMBER_STATE_DRAINING
        self._holding.leaving = True
        await self._host.set_serving(False)
        if self._lease is not None:
            self._lease.poke()
        await self._leaving.wait(self._servicer, self._executor, self._lease, self._config.grace_s)
        self._servicer.draining = True
