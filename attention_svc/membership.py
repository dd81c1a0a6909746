"""What does this service report to the router, and what does it learn from it?"""

import asyncio
from collections.abc import Callable

from attention_svc.activations import ActivationCounts
from attention_svc.engine.scheduler import Scheduler
from attention_svc.experts.pools import PoolSet
from attention_svc.metrics import AttentionMetrics
from protos import router_pb2
from rpc.channel import Access
from rpc.mesh.lease import Lease
from rpc.mesh.topology import TopologyWatcher


class Membership:
    """The lease of one attention service, and its subscription to the topology."""

    def __init__(
        self,
        router: str,
        tls: Access | None,
        register: router_pb2.Register,
        *,
        is_draining: Callable[[], bool],
        scheduler: Scheduler,
        activations: ActivationCounts,
        metrics: AttentionMetrics,
        pools: PoolSet | None,
        on_refused: Callable[[str], None],
    ):
        """`pools` follow the topology; `on_refused` gets a final refusal, on another thread."""
        self._is_draining = is_draining
        self._scheduler = scheduler
        self._activations = activations
        self._metrics = metrics
        self._pools = pools
        self._checkpoint_id = register.checkpoint_id
        self._lease = Lease(
            router,
            tls,
            register,
            self._status,
            lambda assignment: None,  # attention services hold no pieces
            on_refused,
        )
        self._watcher = TopologyWatcher(
            router,
            tls,
            watcher_id=register.member_id,
            role=router_pb2.MEMBER_ROLE_ATTENTION,
            on_change=self._take_topology,
        )

    async def start(self) -> None:
        self._lease.start()
        if self._pools is not None:
            await self._watcher.start()

    async def stop(self) -> None:
        """Say goodbye, so that the router need not wait for the lease to expire."""
        await asyncio.to_thread(self._lease.stop)
        await self._watcher.stop()

    def poke(self) -> None:
        """Report to the router now."""
        self._lease.poke()

    def _take_topology(self, topology: router_pb2.Topology) -> None:
        if topology.checkpoint_id and topology.checkpoint_id != self._checkpoint_id:
            raise ValueError(f"the mesh serves another checkpoint, {topology.checkpoint_id[:64]!r}")
        assert self._pools is not None
        self._pools.apply(topology)
        self._metrics.topology_version.set(topology.version.counter)

    def _status(self) -> router_pb2.MemberStatus:
        """Called on the lease's thread; reads only."""
        scheduler = self._scheduler
        status = router_pb2.MemberStatus(
            state=router_pb2.MEMBER_STATE_DRAINING
            if self._is_draining()
            else router_pb2.MEMBER_STATE_READY,
            queued=len(scheduler.waiting),
            running=len(scheduler.running),
            kv_usage_ratio=scheduler.kv_usage_ratio,
        )
        tokens, steps = self._activations.take_delta()
        for layer_idx, tokens_E in enumerate(tokens):
            experts = tokens_E.nonzero()[0]
            if experts.size:
                status.activations.add(
                    layer_idx=layer_idx,
                    expert_ids=experts,
                    token_counts=tokens_E[experts],
                    step_counts=steps[layer_idx, experts],
                )
        return status
