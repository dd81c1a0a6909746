"""What do the log and the health service show of a running attention service?"""

import asyncio
import logging
from collections.abc import Callable

from attention_svc.engine.engine import Engine
from rpc.loop_failures import LoopFailures
from rpc.process.server import GrpcHost

log = logging.getLogger(__name__)

READINESS_INTERVAL_S = 0.25
REPORT_INTERVAL_S = 5.0


async def follow_readiness(readiness: Callable[[], tuple[bool, str]], host: GrpcHost) -> None:
    """Mirror readiness into the health service and the log."""
    was: tuple[bool, str] | None = None
    failures = LoopFailures(log, "the readiness check failed")
    while True:
        with failures:
            now = readiness()
            if now != was:
                await host.set_serving(now[0])
                log.info("ready" if now[0] else f"not ready: {now[1]}")
                was = now
        await asyncio.sleep(READINESS_INTERVAL_S)


async def report(engine: Engine) -> None:
    """A status line every 5 s while tokens flow."""
    last = 0
    while True:
        await asyncio.sleep(REPORT_INTERVAL_S)
        tokens, scheduler = engine.num_tokens, engine.scheduler
        if tokens != last or not engine.idle:
            tables = scheduler.tables
            log.info(
                "%.1f tokens/s, %d running, %d waiting, KV %.0f %% used, prefix hits %.0f %%",
                (tokens - last) / REPORT_INTERVAL_S,
                len(scheduler.running),
                len(scheduler.waiting),
                100 * scheduler.kv_usage_ratio,
                100 * tables.num_hit_tokens / max(1, tables.num_queried_tokens),
            )
        last = tokens
