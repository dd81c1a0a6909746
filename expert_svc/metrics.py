"""What does Prometheus see of a pool?"""

from prometheus_client import CollectorRegistry

from rpc.metrics import RPC_BUCKETS_S, Collectors


class ExpertMetrics:
    """Collectors of one pool, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        make = Collectors(self.registry)
        queue_s = make.histogram(
            "expertmesh_pool_queue_seconds",
            "Frame received to computation started",
            RPC_BUCKETS_S,
            "phase",
        )
        compute_s = make.histogram(
            "expertmesh_pool_compute_seconds", "Computation of one call", RPC_BUCKETS_S, "phase"
        )
        rows = make.counter("expertmesh_pool_rows_total", "Rows computed", "phase")
        # On the hot path: label lookups are done once.
        self._by_phase = {
            phase: (queue_s.labels(phase), compute_s.labels(phase), rows.labels(phase))
            for phase in ("decode", "prefill")
        }
        self.errors = make.counter(
            "expertmesh_pool_errors_total", "Calls answered with Error", "code"
        )
        self.canary = make.counter(
            "expertmesh_pool_canary_checks_total",
            "Experts whose answer to the fixed row was noted or was the same again",
        )
        self.overflows = make.counter(
            "expertmesh_pool_overflows_total",
            "Calls whose own rows overflowed, with experts that are sound",
        )
        self.streams = make.gauge("expertmesh_pool_streams", "Open Execute streams")
        self.waiting = make.gauge(
            "expertmesh_pool_waiting_calls", "Calls waiting for the computation"
        )
        self.pieces = make.gauge("expertmesh_pool_pieces", "Pieces held, ready to serve")
        self.weight_bytes = make.gauge("expertmesh_pool_weight_bytes", "Weights as held")
        self.experts_per_s = make.gauge(
            "expertmesh_pool_experts_per_second",
            "Experts that a row passes through in a second, as offered to the router",
        )
        self.load_progress = make.gauge(
            "expertmesh_load_progress_ratio", "Share of assigned pieces loaded"
        )
        self.info = make.gauge(
            "expertmesh_pool_info", "Constant 1", "pool_id", "numerics_id", "checkpoint_id"
        )

    def observe_call(self, phase: str, *, queue_s: float, compute_s: float, num_rows: int) -> None:
        """One answered call."""
        queue, compute, rows = self._by_phase[phase]
        queue.observe(queue_s)
        compute.observe(compute_s)
        rows.inc(num_rows)
