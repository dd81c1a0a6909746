"""What does Prometheus see of a pool?"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from rpc.metrics import PREFIX, RPC_BUCKETS_S


class ExpertMetrics:
    """Collectors of one pool, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        queue_s = Histogram(
            PREFIX + "pool_queue_seconds", "Frame received to computation started",
            ["phase"], buckets=RPC_BUCKETS_S, registry=self.registry,
        )  # fmt: skip
        compute_s = Histogram(
            PREFIX + "pool_compute_seconds", "Computation of one call",
            ["phase"], buckets=RPC_BUCKETS_S, registry=self.registry,
        )  # fmt: skip
        rows = Counter(
            PREFIX + "pool_rows_total", "Rows computed", ["phase"], registry=self.registry
        )
        # On the hot path: label lookups are done once.
        self._by_phase = {
            phase: (queue_s.labels(phase), compute_s.labels(phase), rows.labels(phase))
            for phase in ("decode", "prefill")
        }
        self.errors = Counter(
            PREFIX + "pool_errors_total",
            "Calls answered with Error",
            ["code"],
            registry=self.registry,
        )
        self.canary = Counter(
            PREFIX + "pool_canary_checks_total",
            "Experts whose answer to the fixed row was noted or was the same again",
            registry=self.registry,
        )
        self.overflows = Counter(
            PREFIX + "pool_overflows_total",
            "Calls whose own rows overflowed, with experts that are sound",
            registry=self.registry,
        )
        self.streams = Gauge(
            PREFIX + "pool_streams", "Open Execute streams", registry=self.registry
        )
        self.waiting = Gauge(
            PREFIX + "pool_waiting_calls",
            "Calls waiting for the computation",
            registry=self.registry,
        )
        self.pieces = Gauge(
            PREFIX + "pool_pieces", "Pieces held, ready to serve", registry=self.registry
        )
        self.weight_bytes = Gauge(
            PREFIX + "pool_weight_bytes", "Weights as held", registry=self.registry
        )
        self.experts_per_s = Gauge(
            PREFIX + "pool_experts_per_second",
            "Experts that a row passes through in a second, as offered to the router",
            registry=self.registry,
        )
        self.load_progress = Gauge(
            PREFIX + "load_progress_ratio",
            "Share of assigned pieces loaded",
            registry=self.registry,
        )
        self.info = Gauge(
            PREFIX + "pool_info",
            "Constant 1",
            ["pool_id", "numerics_id", "checkpoint_id"],
            registry=self.registry,
        )

    def observe_call(self, phase: str, *, queue_s: float, compute_s: float, num_rows: int) -> None:
        """One answered call."""
        queue, compute, rows = self._by_phase[phase]
        queue.observe(queue_s)
        compute.observe(compute_s)
        rows.inc(num_rows)
