"""Which metrics does an attention service export?"""

from collections.abc import Iterable

import numpy as np
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from attention_svc.activations import ActivationCounts
from rpc.metrics import (
    INTER_TOKEN_BUCKETS_S,
    REQUEST_BUCKETS_S,
    RPC_BUCKETS_S,
    TTFT_BUCKETS_S,
    Collectors,
)

MAX_PIECE_LABELS = 2048
"""With more pieces, activations are series per layer only; the matrix is at /experts/load."""
STEP_PARTS = ("schedule", "attention", "experts", "sample", "stream")


class AttentionMetrics:
    """The collectors of one attention service, in their own registry."""

    def __init__(self, activations: ActivationCounts | None = None) -> None:
        """`activations`: the counts to export, where there are any."""
        self.registry = CollectorRegistry()
        make = Collectors(self.registry)
        if activations is not None:
            self.registry.register(_ActivationSeries(activations))
        self.sequences = make.counter("expertmesh_sequences_total", "Finished sequences", "reason")
        self.prompt_tokens = make.counter(
            "expertmesh_attention_prompt_tokens_total", "Prompt tokens admitted"
        )
        self.generated_tokens = make.counter(
            "expertmesh_attention_generated_tokens_total", "Tokens generated"
        )
        self.preemptions = make.counter(
            "expertmesh_preemptions_total", "Sequences preempted for KV blocks"
        )
        self.prefix_queries_tokens = make.counter(
            "expertmesh_prefix_cache_queries_tokens_total", "Prompt tokens looked up"
        )
        self.prefix_hits_tokens = make.counter(
            "expertmesh_prefix_cache_hits_tokens_total", "Prompt tokens found in the prefix cache"
        )
        self.kv_host_used = make.gauge(
            "expertmesh_kv_host_blocks", "Evicted KV blocks in host memory"
        )
        self.kv_host_capacity = make.gauge(
            "expertmesh_kv_host_capacity_blocks", "KV blocks that host memory has room for"
        )
        self.kv_host_moved_out = make.counter(
            "expertmesh_kv_host_moved_out_blocks_total", "KV blocks copied to host memory"
        )
        self.kv_host_read_back = make.counter(
            "expertmesh_kv_host_read_back_blocks_total", "KV blocks copied back from host memory"
        )
        self.kv_host_saved_tokens = make.counter(
            "expertmesh_kv_host_saved_tokens_total", "Tokens read back and not computed again"
        )
        self._caught_up: dict[str, int] = {}
        self.running = make.gauge("expertmesh_sequences_running", "Sequences in steps")
        self.waiting = make.gauge("expertmesh_sequences_waiting", "Sequences waiting")
        self.kv_usage = make.gauge("expertmesh_kv_cache_usage_ratio", "Used KV blocks / all blocks")
        self.kv_info = make.gauge(
            "expertmesh_kv_cache_config_info", "Constant 1", "block_size", "num_blocks"
        )
        self.info = make.gauge(
            "expertmesh_attention_info",
            "Constant 1",
            "attention_id",
            "numerics_id",
            "checkpoint_id",
        )
        self.ttft_s = make.histogram(
            "expertmesh_attention_ttft_seconds", "Request received to first token", TTFT_BUCKETS_S
        )
        self.inter_token_s = make.histogram(
            "expertmesh_attention_inter_token_seconds",
            "Between two tokens of a sequence",
            INTER_TOKEN_BUCKETS_S,
        )
        self.sequence_s = make.histogram(
            "expertmesh_attention_e2e_seconds",
            "Request received to terminal event",
            REQUEST_BUCKETS_S,
        )
        step_s = make.histogram(
            "expertmesh_step_seconds", "Where a step's time goes", RPC_BUCKETS_S, "part"
        )
        self.step_s = {part: step_s.labels(part) for part in STEP_PARTS}
        self.device_step_s = make.histogram(
            "expertmesh_device_step_seconds",
            "A step on a GPU that holds attention and experts, by its clock",
            RPC_BUCKETS_S,
        )
        self.batch_rows = make.histogram(
            "expertmesh_step_rows",
            "Rows in a step",
            (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048),
        )
        self._rpc_s = make.histogram(
            "expertmesh_expert_rpc_seconds",
            "Expert calls, network, queue and compute apart",
            RPC_BUCKETS_S,
            "pool",
            "part",
        )
        self._rpc_bytes = make.counter(
            "expertmesh_expert_rpc_bytes_total", "Tensor bytes of expert calls", "pool", "direction"
        )
        self.inflight = make.gauge(
            "expertmesh_expert_rpc_inflight", "Expert calls unanswered", "pool"
        )
        self.expert_errors = make.counter(
            "expertmesh_expert_rpc_errors_total", "Calls a pool answered with Error", "pool", "code"
        )
        self.expert_failures = make.counter(
            "expertmesh_expert_call_failures_total",
            "Calls that were sent again elsewhere, or failed",
            "pool",
            "kind",
        )
        self.ejections = make.counter(
            "expertmesh_pool_ejections_total", "Times a pool was put behind its replicas", "pool"
        )
        self.numerics_changes = make.counter(
            "expertmesh_expert_numerics_changes_total",
            "Calls moved to a pool of another numerics_id",
        )
        self.parked = make.gauge(
            "expertmesh_expert_calls_parked",
            "Calls that wait for a pool to come back or to answer soundly",
        )
        self.stalls = make.counter(
            "expertmesh_engine_stalls_total", "Times a step stood still for --stall-s"
        )
        self.late_masks = make.counter(
            "expertmesh_late_masks_total", "Tokens that waited for their grammar after their logits"
        )
        self.pools_connected = make.gauge(
            "expertmesh_pools_connected", "Pools with a usable stream"
        )
        self.topology_version = make.gauge(
            "expertmesh_topology_version", "Counter of the topology in use"
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
                "expertmesh_expert_activations",
                "Tokens routed to an expert",
                labels=["layer", "expert"],
            )
            for (layer_idx, expert_id), count in np.ndenumerate(counts):
                family.add_metric([str(layer_idx), str(expert_id)], float(count))
        else:
            family = CounterMetricFamily(
                "expertmesh_expert_activations_layer",
                "Routed (token, expert) pairs of a layer, and its busiest expert's share of them",
                labels=["layer", "stat"],
            )
            for layer_idx, counts_E in enumerate(counts):
                family.add_metric([str(layer_idx), "sum"], float(counts_E.sum()))
                family.add_metric([str(layer_idx), "max"], float(counts_E.max()))
        yield family
