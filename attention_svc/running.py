"""What makes up a running engine, with or without a server around it?"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version

from attention_svc.activations import ActivationCounts
from attention_svc.config import BLOCK_SIZE, AttentionConfig
from attention_svc.engine.engine import Engine
from attention_svc.engine.layer_stack import LayerStack
from attention_svc.engine.scheduler import Scheduler
from attention_svc.engine.warming import warm_up
from attention_svc.engine.watchdog import Watchdog
from attention_svc.experts.in_process import InProcessTransport
from attention_svc.experts.over_grpc import GrpcTransport
from attention_svc.experts.pools import PoolSet
from attention_svc.experts.transport import ExpertTransport
from attention_svc.grammar.compiler import GrammarCompiler
from attention_svc.kv.block_pool import BlockPool
from attention_svc.kv.block_tables import BlockTables
from attention_svc.kv.cache import KvCache
from attention_svc.kv.host_blocks import HostBlocks
from attention_svc.kv.host_memory import HostMemory
from attention_svc.kv.read_back_cost import ReadBackCost
from attention_svc.loaded import LoadedModel
from attention_svc.metrics import AttentionMetrics
from attention_svc.sequence.sequence import SequenceEnd
from attention_svc.servicer import AttentionServicer
from moe_model.cost import expert_row_flops, inline_rows
from moe_model.device_failures import in_one_line, is_fatal
from moe_model.formats import attention_layer_bytes, piece_bytes
from moe_model.gpus import (
    release_unused,
    torch_bytes,
    use,
    used_bytes,
    wait_for_device,
)
from moe_model.numerics import dtype_name, is_invariant, name_on_wire
from protos import attention_pb2

log = logging.getLogger(__name__)

CLOSE_WAIT_S = 10.0
"""For what a GPU has begun, which takes a second at most unless the device hangs."""
STOPPING = SequenceEnd(reason="ABORTED", error="the attention service is stopping", retryable=True)


class RunningEngine:
    """Weights, cache, engine and servicer of one attention service; no port, router or signal."""

    def __init__(
        self,
        config: AttentionConfig,
        model: LoadedModel,
        activations: ActivationCounts,
        metrics: AttentionMetrics,
        own_id: str,
    ):
        """Reads the weights, which takes long: construct it on a thread."""
        device = model.place.device
        use(device)
        self.own_id = own_id
        self.incarnation = time.time_ns() // 1_000_000
        self.draining = False
        self._config = config
        self._model = model
        self._activations = activations
        self.metrics = metrics
        self._compute_thread = ThreadPoolExecutor(
            1, thread_name_prefix="compute", initializer=use, initargs=(device,)
        )
        self._grammars = GrammarCompiler(config.model, model.vocabulary)
        self.pools: PoolSet | None = None
        self.transport = self._make_transport()
        self.engine = self._make_engine()
        self.watchdog = Watchdog(
            self.engine.progress,
            metrics,
            limit_s=config.stall_s,
            awaited=self.pools.awaited if self.pools is not None else list,
        )
        self.servicer = self._make_servicer()

    def start(self) -> "asyncio.Task[None]":
        """Run steps until the task is cancelled; however it ends, all sequences end with it."""
        use(self._model.place.device)  # by this thread, too
        task = asyncio.create_task(self.engine.run())
        task.add_done_callback(self._ended)
        return task

    async def close(self) -> None:
        """Call it after the task has ended."""
        self.watchdog.stop()
        if self.pools is not None:
            await self.pools.stop()
        await self._grammars.close()
        self.engine.close()
        if self._model.place.gpu is not None:
            await self._device_done()
        self._compute_thread.shutdown(wait=False, cancel_futures=True)

    async def _device_done(self) -> None:
        """Until nothing that was begun goes on: a step that was cancelled still writes to pinned
        memory, which goes with this engine and may be another one's next."""
        device, loop = self._model.place.device, asyncio.get_running_loop()
        # On the thread that may still be sending a step off.
        waiting = loop.run_in_executor(self._compute_thread, wait_for_device, device)
        try:
            await asyncio.wait_for(waiting, CLOSE_WAIT_S)
        except TimeoutError:
            log.warning("closing although %s is not done after %g s", device, CLOSE_WAIT_S)
        except Exception as error:
            if not is_fatal(error):
                raise
            log.warning("closing on %s: %s", device, in_one_line(error))

    def readiness(self) -> tuple[bool, str]:
        """(ready to generate, the reason when not); any thread."""
        if self.draining:
            return False, "draining"
        ready, reason = self.transport.ready()
        stalled = self.watchdog.reason
        return (not stalled, stalled) if ready else (ready, reason)

    def _ended(self, _: "asyncio.Task[None]") -> None:
        self.draining = True
        self.engine.abort_all(STOPPING)

    def _make_transport(self) -> ExpertTransport:
        model = self._model
        if self._config.transport == "in_process":
            piece = piece_bytes(model.config, model.formats.experts, model.place.device)
            return InProcessTransport(
                model.weights,
                model.backend,
                weight_format=model.formats.experts,
                compute_thread=self._compute_thread,
                inline_rows=inline_rows(expert_row_flops(model.config)),
                loaded=partial(model.loading.add, piece),
            )
        transport = GrpcTransport.of_model(
            model.config,
            self.metrics,
            checkpoint_id=model.checkpoint_id,
            caller_id=self.own_id,
            access=self._config.access,
            same_numerics=self._config.same_numerics,
            work=self._activations.work,
        )
        pools = self.pools = transport.pools
        self.metrics.pools_connected.set_function(lambda: sum(link.usable for link in pools.links))
        return transport

    def _make_engine(self) -> Engine:
        model = self._model
        cache = KvCache(
            model.layout,
            num_layers=model.config.num_layers,
            num_blocks=model.num_blocks,
            block_size=BLOCK_SIZE,
            device=model.backend.device,
        )
        self.metrics.kv_info.labels(str(BLOCK_SIZE), str(model.num_blocks)).set(1)
        self.metrics.kv_host_capacity.set(model.num_host_slots)
        host = host_memory = None
        if model.num_host_slots:
            cost = ReadBackCost()
            host = HostBlocks(model.num_host_slots, cost.pays)
            host_memory = HostMemory(cache, model.num_host_slots, cost)
            log.info("evicted KV blocks go to host memory: room for %d", model.num_host_slots)
        stack = LayerStack(
            model.weights,
            cache,
            self.transport,
            self._activations,
            backend=model.backend,
            linear_format=model.formats.linears,
            loaded=partial(
                model.loading.add,
                attention_layer_bytes(model.config, model.formats.linears, model.place.device),
            ),
            compute_thread=self._compute_thread,
            missing_ids=model.vocabulary.missing_ids,
        )
        steps = model.steps
        release_unused(model.place.device)
        warm_up(stack.warm_up(most_rows=steps.rows, most_decode=steps.decode_rows))
        if model.place.gpu is not None:
            device = model.place.device
            for line in model.memory_lines(used_bytes(device), *torch_bytes(device)):
                log.info("%s", line)
        log.info(
            "attention by %s, keys and values in %s",
            stack.attends_by,
            dtype_name(model.layout.dtype),
        )
        scheduler = Scheduler(
            BlockTables(
                BlockPool(model.num_blocks),
                block_size=BLOCK_SIZE,
                checkpoint_id=model.checkpoint_id,
                prefix_cache=not self._config.no_prefix_cache,
                host=host,
            ),
            max_batch_tokens=steps.rows,
            max_running=self._config.max_running,
            max_waiting=self._config.max_waiting,
            max_waiting_tokens=self._config.max_waiting_tokens,
        )
        return Engine(
            stack,
            scheduler,
            self.metrics,
            max_model_len=model.max_len,
            expert_timeout_s=self._config.expert_timeout_s,
            missing_ids=model.vocabulary.missing_ids,
            host_memory=host_memory,
        )

    def _make_servicer(self) -> AttentionServicer:
        config, model = self._config, self._model
        status = attention_pb2.GetStatusResponse(
            checkpoint_id=model.checkpoint_id,
            max_model_len=model.max_len,
            vocab_size=model.config.vocab_size,
            default_stop_token_ids=sorted(model.vocabulary.default_stops),
            version=version("expertmesh"),
            dtype=name_on_wire(model.formats.compute_dtype),
            transport=config.transport,
            attention_id=self.own_id,
            incarnation=self.incarnation,
            kv_capacity_tokens=model.num_blocks * BLOCK_SIZE,
            max_waiting_sequences=config.max_waiting,
            max_waiting_prompt_tokens=config.max_waiting_tokens,
            default_timeout_ms=int(config.request_timeout_s * 1e3),
        )
        return AttentionServicer(
            self.engine,
            vocabulary=model.vocabulary,
            grammars=self._grammars,
            readiness=self.readiness,
            is_draining=lambda: self.draining,
            reach=self.pools.reach if self.pools is not None else list,
            is_invariant=self._is_invariant,
            activations=self._activations,
            status=status,
        )

    def _is_invariant(self) -> bool:
        """Whether no row's bits depend on other rows, in linears, attention and experts."""
        if self.pools is None:
            experts = {self._model.backend.numerics(self._model.formats.experts).id}
        else:
            experts = {link.numerics_id for link in self.pools.links if link.usable}
        return self.engine.is_invariant and len(experts) == 1 and is_invariant(*experts)


@contextlib.asynccontextmanager
async def without_server(config: AttentionConfig) -> AsyncIterator[RunningEngine]:
    """An engine for callers in this process. Raises ValueError with a one-line reason."""
    model = LoadedModel(config)
    activations = ActivationCounts(model.config.num_layers, model.config.num_experts)
    metrics = AttentionMetrics(activations)
    own_id = config.attention_id or "in-process"
    running = await asyncio.to_thread(RunningEngine, config, model, activations, metrics, own_id)
    task = running.start()
    try:
        yield running
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await running.close()
