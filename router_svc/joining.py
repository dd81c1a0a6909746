"""How does a member's Join stream live, from Register to its end?"""

import asyncio
import logging
import time
from typing import Any

import grpc

from protos import router_pb2
from router_svc.members.addresses import AddressRules, advertised, seen_host
from router_svc.members.dialback import check, dial
from router_svc.members.identity import caller_text, identity_of
from router_svc.members.member import ROLE_NAMES, Member, MemberKey
from router_svc.members.proving import why_not_proven
from router_svc.mesh import Mesh
from router_svc.metrics import RouterMetrics
from router_svc.publisher import Publisher
from router_svc.streams import Newest, StreamEnd, first_frame, until_first, write_whole
from rpc.access.tls import require_role
from rpc.channel import Access
from rpc.errors import Forbidden, Mismatch, NotReady, status_of
from rpc.logs import AUDIT, quoted

log = logging.getLogger(__name__)
audit = logging.getLogger(AUDIT)

DIAL_RETRY_S = 1.0
CERTIFICATE_ROLES = {"pool": "expert", "attention": "attention"}
"""Which certificate a member of a role must show."""


class _JoinStream:
    """One member's stream: the assignment to send next, and how it ends."""

    def __init__(self, member: Member, caller_host: str, caller: str):
        self.member = member
        self.caller_host = caller_host
        self.caller = caller  # for the audit log
        self.reported = asyncio.Event()
        self.assignment: Newest[router_pb2.Assignment] = Newest()
        self.ending = StreamEnd()
        self.said_goodbye = False


class Joining:
    """All Join streams: passes reports to the mesh, and the mesh's decisions to the members."""

    def __init__(
        self,
        mesh: Mesh,
        publisher: Publisher,
        metrics: RouterMetrics,
        *,
        tls: bool,
        has_secret: bool = False,
        rules: AddressRules | None = None,
        access: Access | None = None,
    ):
        """`has_secret`: callers have already proven that they know the secret of the mesh;
        `access`: what the router shows to members when it calls them back."""
        self._access = access
        self._has_secret = has_secret
        self._rules = rules or AddressRules()
        self._mesh = mesh
        self._publisher = publisher
        self._metrics = metrics
        self._tls = tls
        publisher.before = self.hand_out
        self._streams: dict[MemberKey, _JoinStream] = {}
        self._waiting: dict[MemberKey, _JoinStream] = {}
        """Streams of successors: see `takeover`."""

    async def serve(self, context: Any) -> None:
        """Serve one stream to its end. Raises what its caller should see as a status."""
        stream = await self._admit(context)
        try:
            welcome = router_pb2.Welcome(
                lease_ms=round(self._mesh.lease_s * 1000), seen_address=str(stream.member.address)
            )
            await context.write(router_pb2.JoinResponse(welcome=welcome))
            self._begin(stream)
            await until_first(
                self._read(stream, context),
                self._write(stream, context),
                self._dial_back(stream),
                stream.ending.wait(),
            )
        finally:
            stream.ending.close()
            self._left(stream)

    def sweep(self) -> None:
        """End the streams of members that fell silent; have due assignments sent."""
        for member in self._mesh.sweep(time.monotonic()):
            self._metrics.losses.labels(member.role, "lease").inc()
            audit.warning("%s %s lost its lease", member.role, member.member_id)
            stream = self._stream_of(member)
            if stream is not None:
                stream.ending.end(NotReady("silent for longer than the lease; join again"))
            self._call_successor(member)
        self._publisher.changed()

    def close(self) -> None:
        """End every stream, because the router is stopping."""
        for stream in (*self._streams.values(), *self._waiting.values()):
            stream.ending.end(NotReady("the router is stopping"))

    async def _admit(self, context: Any) -> _JoinStream:
        frame = await first_frame(context)
        if frame.WhichOneof("frame") != "register":
            raise ValueError("the first frame must be register")
        register = frame.register
        declared = CERTIFICATE_ROLES.get(ROLE_NAMES.get(register.role, ""), "")
        if declared:
            await require_role(context, (declared,), tls=self._tls)
        identity = identity_of(context, declared, has_secret=self._has_secret)
        host = seen_host(context.peer())
        try:
            for field in ("address", "metrics_address"):
                if text := getattr(register, field):
                    address = advertised(text, host, f"register.{field}")
                    await check(address, host, self._rules, f"register.{field}")
            member = self._mesh.join(register, host, time.monotonic(), identity)
        except Exception as error:
            self._metrics.refusals.labels(status_of(error)[0].name).inc()
            log.warning(
                "refused %s %s: %s", quoted(register.member_id), caller_text(context), error
            )
            raise
        stream = _JoinStream(member, host, caller_text(context))
        waits = self._mesh.members.is_successor(member)
        if not waits:
            self._note_joined(stream)
        streams = self._waiting if waits else self._streams
        older = streams.get(member.key)
        streams[member.key] = stream
        if older is not None:
            older.ending.end(NotReady("replaced by a newer stream of the same id"))
        return stream

    async def require_attention(self, watcher_id: str, context: Any) -> None:
        """Refuse a caller that is not, or cannot be, the attention service of this id."""
        role = CERTIFICATE_ROLES["attention"]
        await require_role(context, (role,), tls=self._tls)
        if not identity_of(context, role, has_secret=self._has_secret).may_be(watcher_id):
            raise Forbidden(f"the certificate is not for {quoted(watcher_id)}")

    def _begin(self, stream: _JoinStream) -> None:
        member = stream.member
        if not self._mesh.members.is_successor(member):
            self._publisher.changed()
            return
        audit.info(
            "a second %s %s waits, address %s, incarnation %d, %s: it takes over when it holds"
            " what it should",
            member.role,
            member.member_id,
            member.address,
            member.incarnation,
            stream.caller,
        )
        if member.role == "pool":
            stream.assignment.put(self._mesh.trial(member))

    def _take_over(self, stream: _JoinStream) -> bool:
        """Give a proven successor the place it waits for; False when it may no longer have it."""
        member = stream.member
        older = self._mesh.take_over(member, time.monotonic())
        if older is None:
            return False
        audit.info(
            "%s %s of incarnation %d is fenced by incarnation %d, %s",
            member.role,
            member.member_id,
            older.incarnation,
            member.incarnation,
            stream.caller,
        )
        self._note_joined(stream)
        former = self._streams.get(member.key)
        del self._waiting[member.key]
        self._streams[member.key] = stream
        if former is not None:
            former.ending.end(
                Mismatch(f"fenced: {member.member_id} has a newer incarnation {member.incarnation}")
            )
        self._publisher.changed()
        return True

    def _note_joined(self, stream: _JoinStream) -> None:
        member = stream.member
        self._metrics.joins.labels(member.role).inc()
        audit.info(
            "%s %s joined, address %s, incarnation %d, %s",
            member.role,
            member.member_id,
            member.address,
            member.incarnation,
            stream.caller,
        )

    async def _read(self, stream: _JoinStream, context: Any) -> None:
        while (frame := await context.read()) is not grpc.aio.EOF:
            kind = frame.WhichOneof("frame")
            if kind == "leave":
                stream.said_goodbye = True
                return
            if kind != "status":
                raise ValueError(f"expected status or leave after register, got {kind}")
            members = self._mesh.members
            if not members.is_present(stream.member) and not members.is_successor(stream.member):
                continue  # replaced or expired: the stream is about to end
            reported = self._mesh.report(stream.member, frame.status, time.monotonic())
            stream.reported.set()
            for layer_idx, tokens in reported.added_tokens.items():
                self._metrics.activations.labels(str(layer_idx)).inc(tokens)
            if reported.changed:
                self._publisher.changed()

    async def _write(self, stream: _JoinStream, context: Any) -> None:
        while True:
            assignment = await stream.assignment.take()
            await write_whole(context, router_pb2.JoinResponse(assignment=assignment))

    async def _dial_back(self, stream: _JoinStream) -> None:
        """Try until the member can be reached, and a successor has taken over; then do nothing."""
        member = stream.member
        while not member.reachable:
            reason = await dial(member.address, caller_host=stream.caller_host, rules=self._rules)
            if reason and reason != member.unreachable_reason:
                log.warning("%s %s is not ready: %s", member.role, member.member_id, reason)
            self._mesh.dialled(member, reason)
            self._publisher.changed()
            if reason:
                await asyncio.sleep(DIAL_RETRY_S)
        if self._mesh.members.is_successor(member):
            await self._follow(stream)
        await asyncio.Event().wait()

    async def _follow(self, stream: _JoinStream) -> None:
        """Wait until a successor has proven what it holds, and let it take over."""
        member, told = stream.member, ""
        while True:
            while not self._mesh.may_follow(member):
                stream.reported.clear()
                await stream.reported.wait()
            problem = await why_not_proven(member, self._access)
            if not problem and self._take_over(stream):
                return
            if problem != told:
                log.warning("a second %s %s: %s", member.role, member.member_id, problem)
                told = problem
            await asyncio.sleep(DIAL_RETRY_S)

    def _left(self, stream: _JoinStream) -> None:
        member = stream.member
        for streams in (self._streams, self._waiting):
            if streams.get(member.key) is stream:
                del streams[member.key]
        if not self._mesh.leave(member, time.monotonic(), said_goodbye=stream.said_goodbye):
            return
        if not stream.said_goodbye:
            self._metrics.losses.labels(member.role, "stream").inc()
        how = "left" if stream.said_goodbye else "vanished"
        audit.info("%s %s %s, %s", member.role, member.member_id, how, stream.caller)
        self._call_successor(member)
        self._publisher.changed()

    def _call_successor(self, gone: Member) -> None:
        """End the stream of a waiting successor: the place is free, and it can simply join."""
        if waiting := self._waiting.get(gone.key):
            waiting.ending.end(NotReady("the member of this id has gone; join again"))

    def _stream_of(self, member: Member) -> _JoinStream | None:
        """The member's stream, unless a newer one has taken its place."""
        for streams in (self._streams, self._waiting):
            stream = streams.get(member.key)
            if stream is not None and stream.member is member:
                return stream
        return None

    def hand_out(self) -> None:
        """Tell pools what to hold now; called before each topology is published."""
        acked = self._publisher.acked_by_attention()
        for member, assignment in self._mesh.new_assignments(time.monotonic(), acked):
            stream = self._stream_of(member)
            if stream is not None:
                stream.assignment.put(assignment)
