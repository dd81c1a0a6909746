"""Which metrics does the gateway export?"""

from prometheus_client import CollectorRegistry

from rpc.metrics import (
    INTER_TOKEN_BUCKETS_S,
    REQUEST_BUCKETS_S,
    RPC_BUCKETS_S,
    TTFT_BUCKETS_S,
    Collectors,
)


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
            "Earlier messages that are not rendered as they were sent",
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
        self.thinking_signatures = make.counter(
            "expertmesh_thinking_signatures_total",
            "Thinking blocks that came back, by their signature",
            "verdict",
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
            "expertmesh_connections_closed_total", "Unused connections closed to make room"
        )
        self.connections_refused = make.counter(
            "expertmesh_connections_refused_total",
            "Requests refused because their connection had no place",
        )
        self.store_seconds = make.histogram(
            "expertmesh_response_store_seconds",
            "Operations of the store of answers, waiting included",
            RPC_BUCKETS_S,
            "operation",
        )
        self.store_failures = make.counter(
            "expertmesh_response_store_failures_total",
            "Operations of that store that failed",
            "reason",
        )
        self.store_removed = make.counter(
            "expertmesh_response_store_removed_total", "What that store removed", "reason"
        )
        self.store_bytes = make.gauge(
            "expertmesh_response_store_bytes", "What that store holds, when it last looked"
        )
        self.replicas_ready = make.gauge(
            "expertmesh_attention_replicas_ready", "Ready attention services"
        )
