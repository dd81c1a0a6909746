"""How are the gateway's parts built, started and stopped together?"""

import asyncio
import logging
import time
from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry

from gateway.app import DIALECTS, build_app
from gateway.config import GatewayConfig
from gateway.errors import not_ready
from gateway.generate.pool import POLL_INTERVAL_S, AttentionPool
from gateway.http.background import Background
from gateway.http.connections import ConnectionTable
from gateway.http.context import Gateway, KeySlots
from gateway.http.dialect import Dialect
from gateway.http.server import HttpServer, bind, fit_to_open_files
from gateway.http.thinking_seal import ThinkingSeal, process_keys
from gateway.limits import Limits
from gateway.metrics import GatewayMetrics
from gateway.status_line import StatusLine
from gateway.store.database_thread import Counts
from gateway.store.opening import StorePlace, build_store
from gateway.store.sql_store import SqlStore, StoreLimits
from gateway.store.thread_rows import Bounds
from gateway.text.model_files import ModelFiles, load_model_files
from gateway.text.prompt_encoder import PromptEncoder
from rpc.channel import check_files
from rpc.config import Address
from rpc.mesh.topology import TopologyWatcher
from rpc.metrics import export_certificate_expiry
from rpc.process.server import until_stopped

log = logging.getLogger(__name__)

_SHUTDOWN_MARGIN_S = 3.0


class _StoreCounts(Counts):
    """What the store of answers reports, as metrics."""

    def __init__(self, metrics: GatewayMetrics):
        self._metrics = metrics

    def took(self, operation: str, seconds: float) -> None:
        self._metrics.store_seconds.labels(operation).observe(seconds)

    def failed(self, reason: str) -> None:
        self._metrics.store_failures.labels(reason).inc()

    def removed(self, reason: str, count: int) -> None:
        self._metrics.store_removed.labels(reason).inc(count)


def _open_later(config: GatewayConfig, limits: Limits, metrics: GatewayMetrics) -> SqlStore | None:
    """The store that the flags name; None for none. Raises ValueError naming a flag."""
    store = build_store(
        StorePlace(name=config.response_store, url=config.response_store_url()),
        StoreLimits(
            max_bytes=config.response_store_bytes,
            ttl_s=config.response_ttl_s,
            chain=Bounds(entries=limits.chain_entries, bytes=limits.chain_bytes),
        ),
        _StoreCounts(metrics),
    )
    if store is not None:
        metrics.store_bytes.set_function(lambda: store.used_bytes)
    return store


class GatewayService:
    """One gateway process: `run`, or `start` and `stop`.

    Raises ValueError for what an operator must fix.
    """

    def __init__(
        self,
        config: GatewayConfig,
        *,
        limits: Limits | None = None,
        model: ModelFiles | None = None,
        registry: CollectorRegistry | None = None,
        poll_interval_s: float = POLL_INTERVAL_S,
        dialects: Sequence[Dialect] = DIALECTS,
    ):
        self._config = config
        limits = fit_to_open_files(limits or config.limits)
        if model is None:
            assert config.model is not None
            model = load_model_files(config.model, config.served_model_name)
        self._watcher = (
            TopologyWatcher(config.router, config.access, watcher_id=f"gateway {config.listen}")
            if config.router
            else None
        )
        registry = registry or CollectorRegistry()
        metrics = GatewayMetrics(registry)
        if config.tls is not None:
            export_certificate_expiry(registry, config.tls.expires_at_s)
        self._store = _open_later(config, limits, metrics)
        self.gateway = Gateway(
            config=config,
            limits=limits,
            request_timeout_s=config.request_timeout_s,
            any_model_name=config.any_model_name,
            forced_call_tokens=config.forced_call_tokens,
            model=model,
            pool=AttentionPool(
                self._addresses,
                vocab_size=model.config.vocab_size,
                tls=config.access,
                poll_interval_s=poll_interval_s,
                count_migration=lambda reason: metrics.migrations.labels(reason).inc(),
            ),
            encoder=PromptEncoder(
                model,
                limits,
                reads_all=config.unreadable == "placeholder",
                count_repair=lambda kind, count: metrics.history_repairs.labels(kind).inc(count),
                count_restored=metrics.thinking_restored.inc,
            ),
            metrics=metrics,
            store=self._store,
            background=Background(self._store, limits),
            seal=ThinkingSeal(config.seal_keys.get if config.seal_keys else process_keys()),
            slots=KeySlots(limits.concurrent_per_key),
        )
        table = ConnectionTable(
            limits,
            on_closed=metrics.connections_closed.inc,
            on_refused=metrics.connections_refused.inc,
        )
        metrics.connections.set_function(lambda: table.open)
        self._server = HttpServer(
            build_app(self.gateway, dialects),
            table,
            dialects[0].errors,
            shutdown_timeout_s=config.drain_s + _SHUTDOWN_MARGIN_S,
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._serving: asyncio.Task[None] | None = None
        self.address: Address | None = None

    async def run(self) -> int:
        """Serve until a signal (0)."""
        await self.start()
        await until_stopped(self.stop, self.abort, reload=self._config.reload)
        return 0

    async def start(self) -> None:
        """Bind and serve; readiness follows when an attention service is ready."""
        check_files(self._config.access)
        sock = bind(self._config.listen_address)
        if self._store is not None:
            await self._store.open()
        host, port = sock.getsockname()[:2]
        self.address = Address(host=host, port=port)
        if self._watcher is not None:
            await self._watcher.start()
        self.gateway.pool.start()
        self._tasks = [
            asyncio.create_task(StatusLine(self.gateway.metrics).run()),
            asyncio.create_task(self._announce_ready()),
        ]
        self._serving = asyncio.create_task(self._server.serve(sockets=[sock]))
        while not self._server.started:
            if self._serving.done():
                self._serving.result()
                raise ValueError("the HTTP server did not start")
            await asyncio.sleep(0.01)
        log.info("listening http=%s", self.address)

    async def stop(self) -> None:
        """No new requests; running ones get `drain_s`, then end with an error event.

        The port stays open meanwhile, so that a balancer that has not noticed yet gets a retryable
        503 instead of refused connections.
        """
        self.gateway.stopping = True
        deadline_s = time.monotonic() + self._config.drain_s
        while self.gateway.active and time.monotonic() < deadline_s:
            await asyncio.sleep(0.05)
        self.abort()
        await self.gateway.background.stop()
        self._server.should_exit = True
        if self._serving is not None:
            await self._serving
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._watcher is not None:
            await self._watcher.stop()
        await self.gateway.pool.stop()
        self.gateway.encoder.close()
        if self._store is not None:
            await self._store.close()

    def abort(self) -> None:
        """End what still runs, with an error."""
        for streams in list(self.gateway.active):
            streams.fail(not_ready("the gateway is stopping"))

    def _addresses(self) -> Iterable[str]:
        """Static ones, and those of the newest topology."""
        yield from self._config.attention
        if self._watcher is not None and self._watcher.latest is not None:
            for entry in self._watcher.latest.attentions:
                yield entry.address

    async def _announce_ready(self) -> None:
        while not self.gateway.readiness()[0]:
            await asyncio.sleep(0.05)
        log.info("ready")
