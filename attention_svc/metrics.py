"""Which metrics does an attention service export?"""

from collections.abc import Iterable

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from attention_svc.activations import ActivationCounts
from rpc.metrics import (
    INTER_TOKEN_BUCKETS_S,
    PREFIX,
    REQUEST_BUCKETS_S,
    RPC_BUCKETS_S,
    TTFT_BUCKETS_S,
)

MAX_PIECE_LABELS = 2048
"""With more pieces, activations are series per layer only; the matrix is at /experts/load."""
STEP_PARTS = ("schedule", "attention", "experts", "sample", "stream")


class AttentionMetrics:
    """The collectors of one attention service, in their own registry."""

    def __init__(self, activations: ActivationCounts | None = None) -> None:
        """`activations`: the counts to export, where there are any."""
        registry = self.registry = CollectorRegistry()
        if activations is not None:
            registry.register(_ActivationSeries(activations))
        self.sequences = Counter(
            PREFIX + "sequences_total", "Finished sequences", ["reason"], registry=registry
        )
        self.prompt_tokens = Counter(
            PREFIX + "attention_prompt_tokens_total", "Prompt tokens admitted", registry=registry
        )
        self.generated_tokens = Counter(
            PREFIX + "attention_generated_tokens_total", "Tokens generated", registry=registry
        )
        self.preemptions = Counter(
            PREFIX + "preemptions_total", "Sequences preempted for KV blocks", registry=registry
        )
        self.prefix_queries_tokens = Counter(
            PREFIX + "prefix_cache_queries_tokens_total",
            "Prompt tokens looked up",
            registry=registry,
        )
        self.prefix_hits_tokens = Counter(
            PREFIX + "prefix_cache_hits_tokens_total",
            "Prompt tokens found in the prefix cache",
            registry=registry,
        )
        self._caught_up: dict[str, int] = {}
        self.running = Gauge(PREFIX + "sequences_running", "Sequences in steps", registry=registry)
        self.waiting = Gauge(PREFIX + "sequences_waiting", "Sequences waiting", registry=registry)
        self.kv_usage = Gauge(
            PREFIX + "kv_cache_usage_ratio", "Used KV blocks / all blocks", registry=registry
        )
        self.kv_info = Gauge(
            PREFIX + "kv_cache_config_info",
            "Constant 1",
            ["block_size", "num_blocks"],
            registry=registry,
        )
        self.info = Gauge(
            PREFIX + "attention_info",
            "Constant 1",
            ["attention_id", "numerics_id", "checkpoint_id"],
            registry=registry,
        )
        self.ttft_s = Histogram(
            PREFIX + "attention_ttft_seconds",
            "Request received to first token",
            buckets=TTFT_BUCKETS_S,
            registry=registry,
        )
        self.inter_token_s = Histogram(
            PREFIX + "attention_inter_token_seconds",
            "Between two tokens of a sequence",
            buckets=INTER_TOKEN_BUCKETS_S,
            registry=registry,
        )
        self.sequence_s = Histogram(
            PREFIX + "attention_e2e_seconds",
            "Request received to terminal event",
            buckets=REQUEST_BUCKETS_S,
            registry=registry,
        )
        step_s = Histogram(
            PREFIX + "step_seconds",
            "Where a step's time goes",
            ["part"],
            buckets=RPC_BUCKETS_S,
            registry=registry,
        )
        self.step_s = {part: step_s.labels(part) for part in STEP_PARTS}
        self.batch_rows = Histogram(
            PREFIX + "step_rows",
            "Rows in a step",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048),
            registry=registry,
        )
        self._rpc_s = Histogram(
            PREFIX + "expert_rpc_seconds",
            "Expert calls, network, queue and compute apart",
            ["pool", "part"],
            buckets=RPC_BUCKETS_S,
            registry=registry,
        )
        self._rpc_bytes = Counter(
            PREFIX + "expert_rpc_bytes_total",
            "Tensor bytes of expert calls",
            ["pool", "direction"],
            registry=registry,
        )
        self.inflight = Gauge(
            PREFIX + "expert_rpc_inflight", "Expert calls unanswered", ["pool"], registry=registry
        )
        self.expert_errors = Counter(
            PREFIX + "expert_rpc_errors_total",
            "Calls a pool answered with Error",
            ["pool", "code"],
            registry=registry,
        )
        self.expert_failures = Counter(
            PREFIX + "expert_call_failures_total",
            "Calls that were sent again elsewhere, or failed",
            ["pool", "kind"],
            registry=registry,
        )
        self.ejections = Counter(
            PREFIX + "pool_ejections_total",
            "Times a pool was put behind its replicas",
            ["pool"],
            registry=registry,
        )
        self.numerics_changes = Counter(
            PREFIX + "expert_numerics_changes_total",
            "Calls moved to a pool of another numerics_id",
            registry=registry,
        )
        self.parked = Gauge(
            PREFIX + "expert_calls_parked",
            "Calls that wait for a pool to come back or to answer soundly",
            registry=registry,
        )
        self.stalls = Counter(
            PREFIX + "engine_stalls_total",
            "Times a step stood still for --stall-s",
            registry=registry,
        )
        self.late_masks = Counter(
            PREFIX + "late_masks_total",
            "Tokens that waited for their grammar after their logits",
            registry=registry,
        )
        self.pools_connected = Gauge(
            PREFIX + "pools_connected", "Pools with a usable stream", registry=registry
        )
        self.topology_version = Gauge(
            PREFIX + "topology_version", "Counter of the topology in use", registry=registry
        )
        self._hop_children: dict[str, tuple] = {}
        self._hops: list[tuple[str, float, float, float, int]] = []

    def catch_up(self, **totals: int) -> None:
        """Raise counters, by attribute name, to totals that their owners keep."""
        for name, total in totals.items():
            behind = total - self._caught_up.get(name, 0)
            if behind:
                getattr(self, name).inc(behind)
                self._caught_up[name] = total

    def observe_hop(
        self, pool_id: str, round_trip_s: float, queue_s: float, compute_s: float, num_rows: int
    ) -> None:
        """Note an answered expert call; `flush_hops` counts it (docs/cold-caches.md)."""
        self._hops.append((pool_id, round_trip_s, queue_s, compute_s, num_rows))

    def flush_hops(self, row_bytes_up: int, row_bytes_down: int) -> None:
        """Count the calls noted since the last flush; once per step."""
        hops, self._hops = self._hops, []
        for pool_id, round_trip_s, queue_s, compute_s, num_rows in hops:
            children = self._hop_children.get(pool_id)
            if children is None:
                children = self._hop_children[pool_id] = (
                    *(
                        self._rpc_s.labels(pool_id, part)
                        for part in ("network", "queue", "compute")
                    ),
                    *(self._rpc_bytes.labels(pool_id, direction) for direction in ("up", "down")),
                )
            network, queue, compute, up, down = children
            network.observe(max(0.0, round_trip_s - queue_s - compute_s))
            queue.observe(queue_s)
            compute.observe(compute_s)
            up.inc(num_rows * row_bytes_up)
            down.inc(num_rows * row_bytes_down)


class _ActivationSeries(Collector):
    """Reads the counts whenever Prometheus asks."""

    def __init__(self, activations: ActivationCounts) -> None:
        self._activations = activations

    def collect(self) -> Iterable[CounterMetricFamily]:
        counts = self._activations.counts.copy()
        if counts.size <= MAX_PIECE_LABELS:
            family = CounterMetricFamily(
                PREFIX + "expert_activations",
                "Tokens routed to an expert",
                labels=["layer", "expert"],
            )
            for (layer_idx, expert_id), count in np.ndenumerate(counts):
                family.add_metric([str(layer_idx), str(expert_id)], float(count))
        else:
            family = CounterMetricFamily(
                PREFIX + "expert_activations_layer",
                "Routed (token, expert) pairs of a layer, and its busiest expert's share of them",
                labels=["layer", "stat"],
            )
            for layer_idx, counts_E in enumerate(counts):
                family.add_metric([str(layer_idx), "sum"], float(counts_E.sum()))
                family.add_metric([str(layer_idx), "max"], float(counts_E.max()))
        yield family
