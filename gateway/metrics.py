"""What does the gateway count, and what does it say about itself in the log?"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Literal

from prometheus_client import CollectorRegistry

from gateway.errors import Kind
from rpc.metrics import INTER_TOKEN_BUCKETS_S, REQUEST_BUCKETS_S, TTFT_BUCKETS_S, Collectors

log = logging.getLogger(__name__)

Outcome = Literal["ok", "client_error", "overloaded", "unavailable", "error", "disconnected"]

STATUS_INTERVAL_S = 5.0


_OUTCOMES: dict[Kind, Outcome] = {
    Kind.OVERLOADED: "overloaded",
    Kind.NOT_READY: "unavailable",
    Kind.INTERNAL: "error",
    Kind.BROKEN_UPSTREAM: "error",
    Kind.TIMED_OUT: "error",
}


def outcome_of_error(kind: Kind) -> Outcome:
    """How a request that ended so is counted."""
    return _OUTCOMES.get(kind, "client_error")


class GatewayMetrics:
    """All series of the gateway, as docs/metrics.md lists them."""

    def __init__(self, registry: CollectorRegistry):
        self.registry = registry
        make = Collectors(registry)
        self.requests = make.counter(
            "expertmesh_requests_total", "Requests ended", "api", "outcome"
        )
        self.ttft = make.histogram(
            "expertmesh_ttft_seconds", "Receipt to first token", TTFT_BUCKETS_S, "api"
        )
        self.inter_token = make.histogram(
            "expertmesh_inter_token_seconds",
            "Between tokens of one choice",
            INTER_TOKEN_BUCKETS_S,
            "api",
        )
        self.e2e = make.histogram(
            "expertmesh_e2e_seconds", "Receipt to end", REQUEST_BUCKETS_S, "api"
        )
        self.prompt_tokens = make.counter("expertmesh_prompt_tokens_total", "Tokens of prompts")
        self.cached_tokens = make.counter(
            "expertmesh_cached_prompt_tokens_total", "Of these, from the prefix cache"
        )
        self.generated_tokens = make.counter(
            "expertmesh_generated_tokens_total", "Tokens generated"
        )
        self.waiting = make.gauge("expertmesh_requests_waiting", "Requests without a first token")
        self.running = make.gauge("expertmesh_requests_running", "Requests after their first token")
        self.tool_calls = make.counter("expertmesh_tool_calls_total", "Tool calls in answers")
        self.tool_parse_errors = make.counter(
            "expertmesh_tool_parse_errors_total", "Tool calls that the model left unfinished"
        )
        self.history_repairs = make.counter(
            "expertmesh_history_repairs_total",
            "Earlier speech that is not rendered as it was sent",
            "kind",
        )
        self.tool_values_doubtful = make.counter(
            "expertmesh_tool_values_doubtful_total",
            "Values in tool calls that may have ended elsewhere",
        )
        self.thinking_restored = make.counter(
            "expertmesh_thinking_restored_total",
            "Turns with tool calls that came back without their thinking",
        )
        self.keepalives = make.counter(
            "expertmesh_sse_keepalives_total", "SSE comments sent", "api"
        )
        self.disconnects = make.counter(
            "expertmesh_client_disconnects_total",
            "Clients that left before the end",
            "api",
            "phase",
        )
        self.migrations = make.counter(
            "expertmesh_gateway_migrations_total",
            "Streams that went on at another attention service",
            "reason",
        )
        self.connections = make.gauge("expertmesh_connections_open", "HTTP connections")
        self.connections_closed = make.counter(
            "expertmesh_connections_closed_total", "Unused connections closed for want of room"
        )
        self.connections_refused = make.counter(
            "expertmesh_connections_refused_total",
            "Requests refused for want of a connection's place",
        )
        self.replicas_ready = make.gauge(
            "expertmesh_attention_replicas_ready", "Ready attention services"
        )


class RequestRecord:
    """One request's times and tokens, from receipt to `end` (which counts once)."""

    def __init__(self, metrics: GatewayMetrics, stats: "StatusLine", api: str):
        self._metrics = metrics
        self._stats = stats
        self._api = api
        self.received_s = time.monotonic()
        self._last_token_s: dict[int, float] = {}
        self._ended = False
        self.on_end: Callable[[], None] = lambda: None
        self._tokens_expected = False

    def queued(self, num_prompt_tokens: int) -> None:
        """The prompt is known and generation was asked for."""
        self._tokens_expected = True
        self._metrics.waiting.inc()
        self._stats.waiting += 1
        self._metrics.prompt_tokens.inc(num_prompt_tokens)
        self._stats.prompt_tokens += num_prompt_tokens

    def tokens(self, choice: int, count: int) -> None:
        """`count` tokens of one choice arrived together."""
        now_s = time.monotonic()
        if not self._last_token_s:
            self._metrics.ttft.labels(self._api).observe(now_s - self.received_s)
            self._metrics.waiting.dec()
            self._metrics.running.inc()
            self._stats.waiting -= 1
            self._stats.running += 1
        last_s = self._last_token_s.get(choice)
        if last_s is not None:
            gaps = self._metrics.inter_token.labels(self._api)
            for _ in range(count):
                gaps.observe((now_s - last_s) / count)
        self._last_token_s[choice] = now_s
        self._metrics.generated_tokens.inc(count)
        self._stats.generated_tokens += count

    def keepalive(self) -> None:
        self._metrics.keepalives.labels(self._api).inc()

    def end(self, outcome: Outcome, *, cached_tokens: int = 0) -> None:
        if self._ended:
            return
        self._ended = True
        self.on_end()
        if self._tokens_expected:
            started = bool(self._last_token_s)
            (self._metrics.running if started else self._metrics.waiting).dec()
            if started:
                self._stats.running -= 1
            else:
                self._stats.waiting -= 1
        if outcome == "disconnected":
            phase = "streaming" if self._last_token_s else "before_first_token"
            self._metrics.disconnects.labels(self._api, phase).inc()
        self._metrics.cached_tokens.inc(cached_tokens)
        self._metrics.requests.labels(self._api, outcome).inc()
        self._metrics.e2e.labels(self._api).observe(time.monotonic() - self.received_s)
        self._stats.ended += 1


class StatusLine:
    """Plain numbers since the last line, and the task that writes it when something ran."""

    def __init__(self, interval_s: float = STATUS_INTERVAL_S):
        self._interval_s = interval_s
        self.running = 0
        self.waiting = 0
        self.ended = 0
        self.prompt_tokens = 0
        self.generated_tokens = 0

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            line = self.take()
            if line is not None:
                log.info("%s", line)

    def take(self) -> str | None:
        """The line, or None when nothing ran; starts the next interval."""
        busy = self.running or self.waiting or self.ended or self.prompt_tokens
        line = (
            f"running {self.running}, waiting {self.waiting}, ended {self.ended}, "
            f"prompt {self.prompt_tokens / self._interval_s:.1f} tokens/s, "
            f"generation {self.generated_tokens / self._interval_s:.1f} tokens/s"
        )
        self.ended = self.prompt_tokens = self.generated_tokens = 0
        return line if busy else None
