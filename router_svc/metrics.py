"""What does the router tell Prometheus?"""

import time
from collections import Counter as Tally

from prometheus_client import CollectorRegistry

from protos import router_pb2
from router_svc.members.member import ROLE_NAMES
from router_svc.mesh import Mesh
from router_svc.placement.following import VERDICTS
from router_svc.status import STATE_NAMES, state_name
from rpc.metrics import Collectors


class RouterMetrics:
    """Counters that the servicer and Join streams raise; `observe` sets the rest from the mesh."""

    def __init__(self, registry: CollectorRegistry):
        make = Collectors(registry)
        self.joins = make.counter(
            "expertmesh_router_joins_total", "Members admitted, rejoins included.", "role"
        )
        self.refusals = make.counter(
            "expertmesh_router_refusals_total", "Joins refused, by gRPC status.", "status"
        )
        self.losses = make.counter(
            "expertmesh_router_losses_total",
            "Members that ended without goodbye: stream broken or lease expired.",
            "role",
            "cause",
        )
        # From 0 on: Prometheus' increase() does not see a series that begins with 1.
        for role in ROLE_NAMES.values():
            for cause in ("stream", "lease"):
                self.losses.labels(role, cause)
        self.activations = make.counter(
            "expertmesh_router_activations_total", "Tokens routed to experts, by layer.", "layer"
        )
        self._moved = make.counter(
            "expertmesh_router_load_moves_total",
            "Pieces loaded and given up to even out the load.",
            "kind",
        )
        self._moved_before = dict.fromkeys(("loaded", "dropped"), 0)
        for kind in self._moved_before:
            self._moved.labels(kind)
        self._imbalance = make.gauge(
            "expertmesh_router_imbalance_ratio",
            "Work of the busiest pool over the mean, at the last check.",
        )
        self._decision = make.gauge(
            "expertmesh_router_load_decision",
            "1 for the outcome of the last check of the load, else 0.",
            "verdict",
        )
        self._busy = make.gauge(
            "expertmesh_router_pools_busy_ratio", "Busy share of ready pools.", "stat"
        )
        self._members = make.gauge(
            "expertmesh_router_members", "Members by role and state.", "role", "state"
        )
        self._watchers = make.gauge("expertmesh_router_watchers", "Open topology streams.")
        self._uncovered = make.gauge(
            "expertmesh_router_uncovered_pieces", "Pieces that no ready pool holds."
        )
        self._looping = make.gauge(
            "expertmesh_router_crash_looping_pools",
            "Pools whose last processes ended soon after they were ready.",
        )
        self._kept = make.gauge(
            "expertmesh_router_kept_pools", "Pools of the topology that have no lease."
        )
        self._epoch = make.gauge(
            "expertmesh_router_topology_epoch", "Epoch of the published topology."
        )
        self._counter = make.gauge(
            "expertmesh_router_topology_counter", "Counter of the published topology."
        )

    def observe(self, mesh: Mesh, watchers: int) -> None:
        """Bring everything that is read off the mesh up to date; called several times per lease."""
        tally = Tally((member.role, state_name(member)) for member in mesh.members)
        for role in ROLE_NAMES.values():
            for state in (*STATE_NAMES.values(), "unreachable"):
                self._members.labels(role, state).set(tally[role, state])
        following = mesh.following
        self._imbalance.set(following.imbalance)
        for verdict in VERDICTS:
            self._decision.labels(verdict).set(verdict == following.last.verdict)
        totals = {"loaded": following.loaded_pieces, "dropped": following.dropped_pieces}
        for kind, total in totals.items():
            self._moved.labels(kind).inc(total - self._moved_before[kind])
            self._moved_before[kind] = total
        busy = [
            pool.status.busy_ratio
            for pool in mesh.members.of_role("pool")
            if pool.status is not None and pool.state == router_pb2.MEMBER_STATE_READY
        ]
        self._busy.labels("mean").set(sum(busy) / max(1, len(busy)))
        self._busy.labels("max").set(max(busy, default=0.0))
        self._watchers.set(watchers)
        self._uncovered.set(len(mesh.book.uncovered))
        self._looping.set(len(mesh.crash_loops.looping(time.monotonic())))
        self._kept.set(len(mesh.book.kept_pools))
        if mesh.book.latest is not None:
            self._epoch.set(mesh.book.latest.version.epoch)
            self._counter.set(mesh.book.latest.version.counter)
