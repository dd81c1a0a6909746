"""The life of an attention service: load, join, follow the topology, serve, leave."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version

import torch

from attention_svc.config import BLOCK_SIZE, AttentionConfig
from attention_svc.engine.engine import Engine
from attention_svc.engine.layer_stack import LayerStack
from attention_svc.engine.scheduler import Scheduler
from attention_svc.engine.watchdog import Watchdog
from attention_svc.experts.in_process import InProcessTransport
from attention_svc.experts.link import PoolLink
from attention_svc.experts.over_grpc import GrpcTransport
from attention_svc.experts.pools import PoolSet
from attention_svc.experts.probing import Prober
from attention_svc.experts.transport import ExpertTransport
from attention_svc.grammar.compiler import GrammarCompiler
from attention_svc.kv.block_pool import BlockPool
from attention_svc.kv.block_tables import BlockTables
from attention_svc.kv.budget import count_blocks
from attention_svc.kv.cache import KvCache
from attention_svc.kv.layout import choose_layout
from attention_svc.membership import Membership
from attention_svc.metrics import AttentionMetrics
from attention_svc.reporting import follow_readiness, report
from attention_svc.sequence.sequence import Ending
from attention_svc.servicer import AttentionServicer
from attention_svc.vocabulary import Vocabulary
from moe_model.backends.choice import choose_kernel, is_native
from moe_model.backends.linears import HeldLinears
from moe_model.backends.threads import set_threads
from moe_model.cost import expert_row_flops, inline_rows
from moe_model.numerics import dtype_name, torch_dtype
from moe_model.weights.held_formats import held_formats
from moe_model.weights.open import open_weights, verify_attention
from protos import attention_pb2, attention_pb2_grpc, router_pb2
from rpc.access.guard import CallBounds
from rpc.config import PROTOCOL_MAJOR, PROTOCOL_MINOR, Address, max_rows_per_message
from rpc.hop.codec import HopCodec
from rpc.metrics import export_certificate_expiry
from rpc.process.ops_http import OpsServer
from rpc.process.server import GrpcHost, until_stopped
from rpc.process.service_config import default_member_id

log = logging.getLogger(__name__)

SERVICE = attention_pb2.DESCRIPTOR.services_by_name["Attention"].full_name


class AttentionService:
    """One attention process. `run` returns the exit status."""

    def __init__(self, config: AttentionConfig):
        """Opens and checks the checkpoint. Raises ValueError with one clear line."""
        self._config = config
        self._threads = set_threads(config.threads)
        self._weights, manifest = open_weights(config.model, partial=config.transport == "grpc")
        self._model = self._weights.config
        self._vocabulary = Vocabulary.load(config.model, self._model)
        self._grammars = GrammarCompiler(config.model, self._vocabulary)
        verify_attention(self._weights, manifest)
        self._checkpoint_id = manifest.checkpoint_id
        try:
            self._device = torch.device(config.device)
            torch.empty(0, device=self._device)
        except (RuntimeError, AssertionError) as error:  # torch without that device asserts
            reason = str(error).splitlines()[0]
            raise ValueError(f"--device {config.device}: {reason}") from None
        formats = held_formats(
            config.model, self._model, dtype=config.dtype, expert_dtype=config.expert_dtype,
            linear_dtype=config.linear_dtype, device=self._device.type,
        )  # fmt: skip
        self._dtype, self._expert_format = torch_dtype(formats.compute_dtype), formats.experts
        self._linears = HeldLinears(self._dtype, formats.linears, self._device)
        self._kernel = choose_kernel(formats.linears, self._dtype, self._device)
        limit = self._model.max_position_embeddings
        if config.max_model_len > limit:
            raise ValueError(f"--max-model-len {config.max_model_len} exceeds the model's {limit}")
        self._incarnation = time.time_ns() // 1_000_000
        self._metrics = AttentionMetrics(self._model.num_layers, self._model.num_experts)
        self._compute_thread = ThreadPoolExecutor(1, thread_name_prefix="compute")
        self._layout = choose_layout(config.kv_dtype, self._model, self._dtype, self._device)
        self._num_blocks = count_blocks(config, self._model, self._layout, formats, self._device)
        # A sequence longer than the cache could never run: promise what can be kept.
        self._max_model_len = min(config.max_model_len or limit, self._num_blocks * BLOCK_SIZE)
        self._failure = asyncio.Event()
        self._loaded = False
        self._draining = False
        self._pools: PoolSet | None = None
        self._watchdog: Watchdog | None = None
        self._membership: Membership | None = None

    async def run(self) -> int:
        """Serve until a signal (0) or a final refusal (1)."""
        self._loop = asyncio.get_running_loop()
        ops = OpsServer(
            Address.parse(self._config.ops_listen, "--ops-listen"),
            self._metrics.registry,
            self.readiness,
            {"/experts/load": self._experts_load},
            hosts=self._config.ops_host,
        )
        ops.start()
        # In here, because a grpc.aio server belongs to the loop it was made in.
        if self._config.tls is not None:
            export_certificate_expiry(self._metrics.registry, self._config.tls.expires_at_s)
        self._host = GrpcHost(
            self._config.listen_address,
            tls=self._config.tls,
            secret=self._config.secret,
            reflection=self._config.reflection,
            bounds=self._call_bounds(),
        )
        self._host.bind()
        self._id = self._config.attention_id or default_member_id("attention", self._host.port)
        transport = await asyncio.to_thread(self._make_transport)
        self._engine = await asyncio.to_thread(self._make_engine, transport)
        attention_pb2_grpc.add_AttentionServicer_to_server(self._make_servicer(), self._host.server)
        await self._host.start([SERVICE])
        self._watchdog = Watchdog(
            self._engine.progress, self._metrics, limit_s=self._config.stall_s,
            awaited=self._pools.awaited if self._pools is not None else list,
        )  # fmt: skip
        self._watchdog.start()
        self._loaded = True
        numerics_id = self._kernel.numerics_id
        self._metrics.info.labels(self._id, numerics_id, self._checkpoint_id).set(1)
        log.info(
            "%s: %s on %s, %s linears%s, %d threads, %s experts, context %d, %d KV blocks, listening grpc=%s ops=%s:%d",
            self._id, dtype_name(self._dtype), self._device, numerics_id,
            f" ({self._kernel.why})" if self._kernel.why else "", self._threads, self._config.transport,
            self._max_model_len, self._num_blocks, self._host.address,
            Address.parse(self._config.ops_listen).host, ops.port,
        )  # fmt: skip
        engine_task = asyncio.create_task(self._engine.run())
        tasks = [
            engine_task,
            asyncio.create_task(follow_readiness(self.readiness, self._host)),
            asyncio.create_task(report(self._engine, self._metrics, self._pools)),
        ]
        if isinstance(self._transport, GrpcTransport):
            prober = Prober(self._transport.context, self._model.hidden_size, self._dtype)
            tasks.append(asyncio.create_task(prober.run()))
        await self._join(ops)
        stopped = asyncio.create_task(
            until_stopped(
                self._drain,
                lambda: self._engine.abort_all(_STOPPING),
                reload=self._config.reload,
            )
        )
        failed = asyncio.create_task(self._failure.wait())
        await asyncio.wait({stopped, failed, engine_task}, return_when=asyncio.FIRST_COMPLETED)
        if engine_task.done():
            # A dead engine behind a healthy face would be worse than no service: exit, restart.
            log.critical("the engine stopped", exc_info=engine_task.exception())
            self._failure.set()
            self._engine.abort_all(_STOPPING)
        if self._membership is not None:
            await self._membership.stop()
        await self._host.stop(0.5)
        for task in (*tasks, stopped, failed):
            task.cancel()
        if self._pools is not None:
            await self._pools.stop()
        await self._grammars.close()
        self._engine.close()
        self._watchdog.stop()
        ops.stop()
        self._compute_thread.shutdown(wait=False, cancel_futures=True)
        return 1 if self._failure.is_set() else 0

    @contextlib.asynccontextmanager
    async def without_server(self) -> AsyncIterator[AttentionServicer]:
        """The servicer of a running engine for callers in this process: no port, router or signal."""
        self._id = self._config.attention_id or "in-process"
        transport = await asyncio.to_thread(self._make_transport)
        self._engine = await asyncio.to_thread(self._make_engine, transport)
        self._loaded = True
        running = asyncio.create_task(self._engine.run())

        def on_end(_: asyncio.Task[None]) -> None:
            self._draining = True  # whatever ended it: nobody may wait for it
            self._engine.abort_all(_STOPPING)

        running.add_done_callback(on_end)
        try:
            yield self._make_servicer()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await self._grammars.close()
            self._engine.close()
            self._compute_thread.shutdown(cancel_futures=True)

    def readiness(self) -> tuple[bool, str]:
        """(ready to generate, the reason when not); any thread."""
        if self._draining:
            return False, "draining"
        if not self._loaded:
            return False, "loading"
        ready, reason = self._transport.ready()
        stalled = self._watchdog.reason if self._watchdog is not None else ""
        return (not stalled, stalled) if ready else (ready, reason)

    def _make_transport(self) -> ExpertTransport:
        if self._config.transport == "in_process":
            self._transport: ExpertTransport = InProcessTransport(
                self._weights,
                self._dtype,
                self._device,
                weight_format=self._expert_format,
                compute_thread=self._compute_thread,
                inline_rows=inline_rows(expert_row_flops(self._model)),
            )
            return self._transport
        codec = HopCodec.best()
        self._pools = PoolSet(
            self._model.num_layers,
            self._model.num_experts,
            partial(self._make_link, codec),
            same_numerics=self._config.same_numerics,
            work=self._metrics.activations.work,
        )
        self._transport = GrpcTransport(self._pools, self._metrics, codec)
        return self._transport

    def _make_link(
        self, codec: HopCodec, pool_id: str, address: str, on_change: Callable[[], None]
    ) -> PoolLink:
        return PoolLink(
            pool_id,
            address,
            caller_id=self._id,
            checkpoint_id=self._checkpoint_id,
            num_layers=self._model.num_layers,
            num_experts=self._model.num_experts,
            tls=self._config.access,
            metrics=self._metrics,
            codec=codec,
            on_change=on_change,
        )

    def _make_engine(self, transport: ExpertTransport) -> Engine:
        cache = KvCache(
            self._layout,
            num_layers=self._model.num_layers,
            num_blocks=self._num_blocks,
            block_size=BLOCK_SIZE,
            device=self._device,
        )
        self._metrics.kv_info.labels(str(BLOCK_SIZE), str(self._num_blocks)).set(1)
        stack = LayerStack(
            self._weights,
            cache,
            transport,
            self._metrics.activations,
            linears=self._linears,
            compute_thread=self._compute_thread,
        )
        log.info(
            "attention by %s, keys and values in %s",
            "the native kernel" if stack.attends_natively else "torch", dtype_name(self._layout.dtype),
        )  # fmt: skip
        message_rows = max_rows_per_message(self._model.hidden_size, self._model.top_k)
        scheduler = Scheduler(
            BlockTables(
                BlockPool(self._num_blocks),
                block_size=BLOCK_SIZE,
                checkpoint_id=self._checkpoint_id,
                prefix_cache=not self._config.no_prefix_cache,
            ),
            max_batch_tokens=min(self._config.max_batch_tokens, message_rows),
            max_running=self._config.max_running,
            max_waiting=self._config.max_waiting,
            max_waiting_tokens=self._config.max_waiting_tokens,
        )
        return Engine(
            stack,
            scheduler,
            self._metrics,
            block_size=BLOCK_SIZE,
            max_model_len=self._max_model_len,
            expert_timeout_s=self._config.expert_timeout_s,
            missing_ids=self._vocabulary.missing_ids,
        )

    def _make_servicer(self) -> AttentionServicer:
        status = attention_pb2.GetStatusResponse(
            checkpoint_id=self._checkpoint_id,
            max_model_len=self._max_model_len,
            vocab_size=self._model.vocab_size,
            default_stop_token_ids=sorted(self._vocabulary.default_stops),
            version=version("expertmesh"),
            dtype=dtype_name(self._dtype),
            transport=self._config.transport,
            attention_id=self._id,
            incarnation=self._incarnation,
            kv_capacity_tokens=self._num_blocks * BLOCK_SIZE,
            max_waiting_sequences=self._config.max_waiting,
            max_waiting_prompt_tokens=self._config.max_waiting_tokens,
            default_timeout_ms=int(self._config.request_timeout_s * 1e3),
        )
        return AttentionServicer(
            self._engine,
            vocabulary=self._vocabulary,
            grammars=self._grammars,
            max_model_len=self._max_model_len,
            request_timeout_s=self._config.request_timeout_s,
            readiness=self.readiness,
            is_draining=lambda: self._draining,
            reach=lambda: self._pools.reach() if self._pools is not None else [],
            is_invariant=self._is_invariant,
            activations=self._metrics.activations,
            status=status,
        )

    def _call_bounds(self) -> CallBounds:
        """The scheduler refuses first, with the better reason; several gateways share the total."""
        sequences = self._config.max_running + self._config.max_waiting
        return CallBounds(per_connection=2 * sequences + 256, total=8 * sequences + 1024)

    def _is_invariant(self) -> bool:
        """Linears, attention and experts by the native kernels, and experts of one kind."""
        if self._pools is None:
            experts = {choose_kernel(self._expert_format, self._dtype, self._device).numerics_id}
        else:
            experts = {link.numerics_id for link in self._pools.links if link.usable}
        return self._engine.is_invariant and len(experts) == 1 and is_native(*experts)

    async def _join(self, ops: OpsServer) -> None:
        """Join the router and follow its topology, when there is one."""
        if not self._config.router:
            return
        advertise = self._config.advertise or str(self._host.address)
        self._membership = Membership(
            self._config.router,
            self._config.access,
            router_pb2.Register(
                role=router_pb2.MEMBER_ROLE_ATTENTION,
                member_id=self._id,
                incarnation=self._incarnation,
                address=advertise,
                checkpoint_id=self._checkpoint_id,
                numerics_id=self._kernel.numerics_id,
                num_layers=self._model.num_layers,
                num_experts=self._model.num_experts,
                protocol_major=PROTOCOL_MAJOR,
                protocol_minor=PROTOCOL_MINOR,
                metrics_address=f"{Address.parse(advertise).host}:{ops.port}",
            ),
            state=self._state,
            scheduler=self._engine.scheduler,
            metrics=self._metrics,
            pools=self._pools,
            on_refused=self._refused,
        )
        await self._membership.start()

    def _refused(self, reason: str) -> None:
        """On the lease's thread; it is logged there."""
        self._loop.call_soon_threadsafe(self._failure.set)

    def _state(self) -> "router_pb2.MemberState":
        """Any thread."""
        if self._draining:
            return router_pb2.MEMBER_STATE_DRAINING
        return router_pb2.MEMBER_STATE_READY if self._loaded else router_pb2.MEMBER_STATE_LOADING

    def _experts_load(self) -> object:
        """GET /experts/load: tokens routed to each expert since start, by layer."""
        return {"layers": self._metrics.activations.counts.tolist()}

    async def _drain(self) -> None:
        """No new requests; gateways that have another service take running ones there, the others
        get the grace period, then end explicitly."""
        self._draining = True
        await self._host.set_serving(False)
        if self._membership is not None:
            self._membership.poke()
        deadline = time.monotonic() + self._config.grace_s
        while not self._engine.idle and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        self._engine.abort_all(_STOPPING)


_STOPPING = Ending(reason="ABORTED", error="the attention service is stopping", retryable=True)
