"""How do the RPCs of expertmesh.router.v1.Router reach the mesh?"""

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from protos import router_pb2, router_pb2_grpc
from router_svc.joining import CERTIFICATE_ROLES, Joining
from router_svc.members.identity import caller_text
from router_svc.members.member import MAX_NAME_LENGTH, ROLE_NAMES, Member
from router_svc.mesh import Mesh
from router_svc.placement.moves import Rebalanced
from router_svc.publisher import Publisher, Watcher
from router_svc.streams import first_frame, until_first, write_whole
from rpc.access.guard import callable_by
from rpc.errors import NotReady, Overloaded, abort_with
from rpc.logs import AUDIT

log = logging.getLogger(__name__)
audit = logging.getLogger(AUDIT)

WATCHING_ROLES = ("gateway", "attention", "cli")
ROLES_BY_NAME = {name: role for role, name in ROLE_NAMES.items()}


class RouterServicer(router_pb2_grpc.RouterServicer):
    """The RPCs of protos/router.proto; counts streams and turns errors into statuses."""

    def __init__(self, mesh: Mesh, publisher: Publisher, joining: Joining, *, max_streams: int):
        self._mesh = mesh
        self._publisher = publisher
        self._joining = joining
        self._max_streams = max_streams
        self._num_open = 0

    @callable_by(*CERTIFICATE_ROLES.values())
    async def Join(self, request_iterator: Any, context: Any) -> None:
        await self._guarded(self._joining.serve, context)

    @callable_by(*WATCHING_ROLES)
    async def WatchTopology(self, request_iterator: Any, context: Any) -> None:
        await self._guarded(self._watch, context)

    @callable_by(*WATCHING_ROLES)
    async def GetTopology(
        self, request: router_pb2.GetTopologyRequest, context: Any
    ) -> router_pb2.GetTopologyResponse:
        now_s = time.monotonic()
        members = sorted(self._mesh.members, key=lambda member: member.key)
        return router_pb2.GetTopologyResponse(
            topology=self._publisher.publish(),
            members=[_report(member, now_s) for member in members],
        )

    @callable_by("cli")
    async def DrainPool(
        self, request: router_pb2.DrainPoolRequest, context: Any
    ) -> router_pb2.DrainPoolResponse:
        pool = self._mesh.members.get(("pool", request.pool_id))
        if pool is None:
            known = ", ".join(member.member_id for member in self._mesh.members.of_role("pool"))
            return await context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"pool_id: no pool {request.pool_id[:128]!r}; there are: {known[:500] or 'none'}",
            )
        self._mesh.drain(pool, time.monotonic(), undo=request.undo)
        audit.info(
            "pool %s is %s by an operator, %s",
            pool.member_id,
            "used again" if request.undo else "drained",
            caller_text(context),
        )
        self._publisher.changed()
        return router_pb2.DrainPoolResponse(held_pieces=len(pool.ready))

    @callable_by("cli")
    async def GetExpertLoad(
        self, request: router_pb2.GetExpertLoadRequest, context: Any
    ) -> router_pb2.GetExpertLoadResponse:
        tokens = self._mesh.activations.tokens()
        return router_pb2.GetExpertLoadResponse(
            num_layers=len(tokens),
            num_experts=len(tokens[0]) if tokens else 0,
            token_counts=[count for row in tokens for count in row],
        )

    @callable_by("cli")
    async def Rebalance(
        self, request: router_pb2.RebalanceRequest, context: Any
    ) -> router_pb2.RebalanceResponse:
        done = Rebalanced()
        try:
            done = await self._mesh.rebalance(time.monotonic(), dry_run=request.dry_run)
        except NotReady as error:
            await abort_with(context, error)
        if not request.dry_run:
            audit.info(
                "rebalanced by an operator, %d pieces move, %s", done.loaded, caller_text(context)
            )
        self._publisher.changed()
        last = self._mesh.following.last
        return router_pb2.RebalanceResponse(
            moving_pieces=done.loaded,
            imbalance_before=done.before,
            imbalance_after=done.after,
            moves=done.moves,
            last_decision=f"{last.verdict}: {last.reason}",
        )

    async def _guarded(self, serve: Callable[[Any], Awaitable[None]], context: Any) -> None:
        """Run one stream; an exception becomes its status."""
        if self._num_open >= self._max_streams:
            await abort_with(
                context, Overloaded(f"the router serves at most {self._max_streams} streams")
            )
        self._num_open += 1
        try:
            await serve(context)
        except grpc.aio.AbortError:
            raise
        except grpc.aio.InternalError:
            log.debug("a stream broke while it was written to")
        except Exception as error:  # abort_with logs the unexpected ones
            await abort_with(context, error)
        finally:
            self._num_open -= 1

    async def _watch(self, context: Any) -> None:
        first = await first_frame(context)
        if len(first.watcher_id) > MAX_NAME_LENGTH:
            raise ValueError(f"watcher_id: at most {MAX_NAME_LENGTH} characters")
        if first.role == router_pb2.MEMBER_ROLE_ATTENTION:
            # Its ACKs decide when pools unload: no other caller may send or withhold them.
            await self._joining.require_attention(first.watcher_id, context)
        watcher = self._publisher.add_watcher(
            first.acked.epoch,
            first.watcher_id,
            is_attention=first.role == router_pb2.MEMBER_ROLE_ATTENTION,
        )
        try:
            await until_first(
                _read_acks(watcher, context),
                _write_topologies(watcher, context),
                watcher.ending.wait(),
            )
        finally:
            watcher.ending.close()
            self._publisher.remove_watcher(watcher)


async def _write_topologies(watcher: Watcher, context: Any) -> None:
    while True:
        topology = await watcher.topology.take()
        await write_whole(context, router_pb2.WatchTopologyResponse(topology=topology))


async def _read_acks(watcher: Watcher, context: Any) -> None:
    while (frame := await context.read()) is not grpc.aio.EOF:
        watcher.acked = (frame.acked.epoch, frame.acked.counter)


def _report(member: Member, now_s: float) -> router_pb2.MemberReport:
    return router_pb2.MemberReport(
        role=ROLES_BY_NAME[member.role],
        member_id=member.member_id,
        address=str(member.address),
        metrics_address=str(member.metrics_address or ""),
        status=member.status,
        silent_ms=round(max(0.0, now_s - member.last_seen_s) * 1000),
        unready_reason=member.unready_reason,
        experts_per_s=member.offer.experts_per_s if member.offer else 0.0,
    )
