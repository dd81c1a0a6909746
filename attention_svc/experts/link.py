"""How does this process talk to one pool? Connect, hello, send, receive, reconnect.

A link is usable from the pool's Hello to the stream's end. When the stream ends, every call in
flight on it fails at once, and the link dials again by itself.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from attention_svc.experts.call_outcome import CallAnswered, CallFailed, CallOutcome
from attention_svc.experts.health import PoolHealth, work_units
from attention_svc.metrics import AttentionMetrics
from protos import expert_pb2
from rpc.cancellation import is_being_cancelled
from rpc.channel import Access, open_channel
from rpc.config import PROTOCOL_MAJOR, PROTOCOL_MINOR
from rpc.hop.codec import HopCodec, ResultFrame, result_of, to_bytes
from rpc.hop.frame_writer import FrameWriter
from rpc.logs import cut, quoted
from rpc.mesh.pieces import Pieces

log = logging.getLogger(__name__)

PING_INTERVAL_S = 1.0
SILENCE_LIMIT_S = 10.0
"""A stream that delivers no frame for this long, not even a Pong, is given up."""
QUIET_PINGS = 1.5
"""Without a frame for so many ping intervals, the peer was unreachable before the stream ended."""
HELLO_TIMEOUT_S = 5.0
RECONNECT_S = 0.2
MAX_REASON_CHARS = 300
NEWS_FACTOR = 2.0
"""Pools are chosen again when an expected round trip has changed by this factor."""
_DECODE_UNITS = work_units(8, 8)
_CLOSED = "the link was closed"
_KINDS = {
    "INVALID_ARGUMENT": "refused",
    "NOT_HOLDING": "not_holding",
    "DRAINING": "draining",
    "RESOURCE_EXHAUSTED": "overloaded",
    "DEADLINE_EXCEEDED": "timeout",
    "CORRUPT": "corrupt",
}
"""A CallFailed's kind by the code of an Error; all other codes are the pool's own failures."""
_EXECUTE = "/expertmesh.expert.v1.ExpertPool/Execute"


class LinkBroken(Exception):
    """The stream to the pool has ended or cannot be used."""


class Garbled(LinkBroken):
    """A frame that no sound pool sends: nothing else on this stream can be trusted either."""


@dataclass(slots=True)
class PendingCall:
    """A call in flight; `on_done` gets its outcome once, unless it is abandoned first."""

    sent_s: float
    num_rows: int
    on_done: Callable[[CallOutcome], None]
    abandoned: bool = False


class PoolLink:
    """The stream to one pool. Use from one event loop."""

    def __init__(
        self,
        pool_id: str,
        address: str,
        on_change: Callable[[], None],
        *,
        caller_id: str,
        checkpoint_id: str,
        num_layers: int,
        num_experts: int,
        access: Access | None,
        metrics: AttentionMetrics,
        codec: HopCodec,
    ):
        """`on_change` is called when the link becomes usable or stops being so."""
        self.pool_id = pool_id
        self.address = address
        self.hello: expert_pb2.PoolHello | None = None
        self.last_error = "connecting"
        self.health = PoolHealth()
        self.generation = 0
        """Counts the streams: a failure on an older one says nothing about this one."""
        self.incarnation = 0
        """Of the process that the last stream reached."""
        self._caller_hello = expert_pb2.CallerHello(
            protocol_major=PROTOCOL_MAJOR,
            protocol_minor=PROTOCOL_MINOR,
            checkpoint_id=checkpoint_id,
            caller_id=caller_id,
        )
        self._sizes = (num_layers, num_experts)
        self._access = access
        self._metrics = metrics
        self._codec = codec
        self._on_change = on_change
        self._pending: dict[int, PendingCall] = {}
        self._inflight_rows = 0
        self._credit = (0, 0)
        self._writer: FrameWriter | None = None
        self._heard_s = 0.0
        self._nonce = 0
        self._idle_ping_s = 0.0  # when the last ping left, if no call was in flight
        self._told = (False, 0.0)  # (ejected, predicted_s) at the last call of `on_change`
        self._gave_up = "the stream was cancelled"
        self._task: asyncio.Task[None] | None = None

    @property
    def usable(self) -> bool:
        return self.hello is not None

    @property
    def owes_answers(self) -> bool:
        """Any thread."""
        return any(not call.abandoned for call in list(self._pending.values()))

    @property
    def numerics_id(self) -> str:
        return "" if self.hello is None else self.hello.numerics_id

    @property
    def predicted_s(self) -> float:
        """Expected round trip of a decode call of a few rows; 0: not known."""
        return self.health.predict_s(_DECODE_UNITS)

    def start(self) -> None:
        self._metrics.inflight.labels(self.pool_id).set_function(lambda: len(self._pending))
        self._task = asyncio.create_task(self._run(), name=f"link {self.pool_id}")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def execute(
        self, frame: bytes, call_id: int, num_rows: int, on_done: Callable[[CallOutcome], None]
    ) -> None:
        """Put an Execute on the stream. Without a stream or credit it fails at once."""
        if self._writer is None:
            reason = f"pool {self.pool_id} is not connected: {self.last_error}"
            on_done(CallFailed("unsent", reason))
            return
        max_calls, max_rows = self._credit
        if len(self._pending) >= max_calls or self._inflight_rows + num_rows > max_rows:
            on_done(CallFailed("unsent", f"pool {self.pool_id} has no credit left"))
            return
        sent_s = time.monotonic()
        self._writer.push(frame)
        # After the push (docs/cold-caches.md); no answer is read before the next await.
        self._pending[call_id] = PendingCall(sent_s, num_rows, on_done)
        self._inflight_rows += num_rows

    def abandon(self, call_id: int) -> None:
        """Stop waiting for a call: tell the pool, and ignore the answer.

        Its credit comes back with that answer: the pool counts the call until then.
        """
        call = self._pending.get(call_id)
        if call is None or call.abandoned:
            return
        call.abandoned = True
        if self._writer is not None:
            self._writer.push(expert_pb2.ExecuteRequest(cancel=expert_pb2.Cancel(call_id=call_id)))

    async def _run(self) -> None:
        while True:
            channel = open_channel(self.address, tls=self._access, server_role="expert")
            try:
                await self._one_stream(channel)
            except grpc.aio.AioRpcError as error:
                self._broken(cut(f"{error.code().name}: {error.details()}", MAX_REASON_CHARS))
            except Garbled as error:
                self._broken(str(error), "corrupt")
            except asyncio.InvalidStateError:  # written to just after it had ended
                self._broken("the pool ended the stream")
            except (TimeoutError, ValueError, LinkBroken) as error:
                self._broken(str(error) or type(error).__name__)
            finally:
                # Also on cancellation: calls in flight must learn that the stream is gone.
                self._broken(_CLOSED)
                await channel.close()
            await asyncio.sleep(RECONNECT_S)

    async def _one_stream(self, channel: grpc.aio.Channel) -> None:
        # Frames cross as bytes: the codec reads an answer without making a message of it.
        stream = channel.stream_stream(_EXECUTE, request_serializer=to_bytes)()
        async with asyncio.timeout(HELLO_TIMEOUT_S):
            await stream.write(expert_pb2.ExecuteRequest(hello=self._caller_hello))
            frame = await stream.read()
        first = expert_pb2.ExecuteResponse()
        if frame is not grpc.aio.EOF:
            first = _parse(frame)
        if first.WhichOneof("frame") != "hello":
            raise LinkBroken(await _end_of(stream) or "the first frame was not hello")
        writer = FrameWriter(stream.write)
        self._greet(first.hello, writer)
        pinger = asyncio.create_task(self._ping(stream, writer))
        try:
            while True:
                try:
                    frame = await stream.read()
                except asyncio.CancelledError:
                    # Is this task being cancelled, or did the pinger give the stream up?
                    if is_being_cancelled():
                        raise
                    raise LinkBroken(self._gave_up) from None
                if frame is grpc.aio.EOF:
                    raise LinkBroken(await _end_of(stream) or "the pool closed the stream")
                self._heard_s = time.monotonic()
                self._receive(frame)
                # The call that waits for this frame goes first: asking for the next takes time.
                await asyncio.sleep(0)
        finally:
            stream.cancel()
            writer.close()
            pinger.cancel()
            # It may have failed on the dying stream, which the reader reports already.
            await asyncio.gather(pinger, return_exceptions=True)

    def _greet(self, hello: expert_pb2.PoolHello, writer: FrameWriter) -> None:
        if hello.protocol_major != PROTOCOL_MAJOR:
            raise LinkBroken(f"protocol major {hello.protocol_major}, not {PROTOCOL_MAJOR}")
        if hello.checkpoint_id != self._caller_hello.checkpoint_id:
            raise LinkBroken(f"the pool serves another checkpoint, {quoted(hello.checkpoint_id)}")
        if hello.pool_id != self.pool_id:
            raise LinkBroken(
                f"{self.address} is pool {quoted(hello.pool_id)}, not {self.pool_id!r}"
            )
        if len(hello.numerics_id) > MAX_REASON_CHARS or not hello.numerics_id.isprintable():
            raise LinkBroken(f"the pool's numerics_id is not valid: {quoted(hello.numerics_id)}")
        num_layers, num_experts = self._sizes
        # Only checked: which pieces we ask this pool for is in the topology.
        Pieces.from_message(
            hello.pieces, num_layers=num_layers, num_experts=num_experts, field="hello.pieces"
        )
        self._heard_s = time.monotonic()
        self._take_credit(hello.credit)
        self._writer = writer
        self.generation += 1
        self.incarnation = hello.incarnation
        self.hello = hello
        log.info("pool %s at %s connected: %s", self.pool_id, self.address, hello.numerics_id)
        self._on_change()

    def _receive(self, frame: bytes) -> None:
        result = self._codec.read_result(frame)
        if result is not None:
            self._answered(result)
            return
        response = _parse(frame)
        kind = response.WhichOneof("frame")
        if kind == "result":
            self._answered(result_of(response.result))
        elif kind == "error":
            self._refused(response.error)
        elif kind == "pong":
            self._ponged(response.pong.nonce)
        elif kind == "credit":
            self._take_credit(response.credit)

    def _take_credit(self, credit: expert_pb2.Credit) -> None:
        self._credit = (credit.max_inflight_calls, credit.max_inflight_rows)

    def _answered(self, result: ResultFrame) -> None:
        if result.call_id not in self._pending:
            # Abandoned calls are still in `_pending`: this answer must belong to another call.
            raise Garbled(f"an answer to call {result.call_id}, which is not in flight")
        call = self._settle(result.call_id)
        if call is not None:
            round_trip_s = self._heard_s - call.sent_s
            if round_trip_s > NEWS_FACTOR * self._told[1]:
                self._review()  # by the answers so far: the next ping may be far
            call.on_done(CallAnswered(result, round_trip_s))

    def _refused(self, error: expert_pb2.Error) -> None:
        if error.call_id not in self._pending:
            return
        code = _code_name(error.code)
        self._metrics.expert_errors.labels(self.pool_id, code).inc()
        call = self._settle(error.call_id)
        if call is not None:
            piece = error.not_holding
            call.on_done(
                CallFailed(
                    _KINDS.get(code, "error"),
                    f"pool {self.pool_id}: {code}: {error.message[:300]}",
                    (piece.layer_idx, piece.expert_id),
                )
            )

    def _settle(self, call_id: int) -> PendingCall | None:
        """Give an answered call's credit back; the call when somebody still waits for it."""
        call = self._pending.pop(call_id)
        self._inflight_rows -= call.num_rows
        return None if call.abandoned else call

    async def _ping(self, stream: grpc.aio.StreamStreamCall, writer: FrameWriter) -> None:
        while True:
            await asyncio.sleep(PING_INTERVAL_S)
            now_s = time.monotonic()
            if now_s - self._heard_s > SILENCE_LIMIT_S:
                self._gave_up = f"silent for {SILENCE_LIMIT_S:.0f} s"
                stream.cancel()
                return
            # Beside calls a ping would measure them: the pool computes in between.
            self._idle_ping_s = 0.0 if self._pending else now_s
            self._nonce += 1
            writer.push(expert_pb2.ExecuteRequest(ping=expert_pb2.Ping(nonce=self._nonce)))
            self._review()

    def _review(self) -> None:
        """Report that the pool was ejected or readmitted, or its expected round trip changed."""
        ejected, predicted_s = self._told
        now_s = self.predicted_s
        changed = not predicted_s / NEWS_FACTOR <= now_s <= predicted_s * NEWS_FACTOR
        if changed or ejected != self.health.ejected:
            self._told = (self.health.ejected, now_s)
            self._on_change()

    def _ponged(self, nonce: int) -> None:
        if nonce == self._nonce and self._idle_ping_s:
            self.health.pinged(self._heard_s - self._idle_ping_s, self._heard_s)

    def _broken(self, reason: str, kind: str = "broken") -> None:
        """The stream is gone: fail the calls in flight, once, with this kind of failure."""
        was_usable, self.hello, self._writer = self.usable, None, None
        if reason not in (_CLOSED, self.last_error):
            log.warning("pool %s at %s: %s", self.pool_id, self.address, reason)
            self.last_error = reason
        pending, self._pending = self._pending, {}
        self._inflight_rows = 0
        if was_usable:
            self._on_change()  # first, so that a call that is moved now is not given this pool
        # A peer that became unreachable was not broken by the call's rows. gRPC has one code for
        # both, but a pool that a call kills has answered pings until then.
        quiet_s = time.monotonic() - self._heard_s
        if kind == "broken" and quiet_s > QUIET_PINGS * PING_INTERVAL_S:
            kind = "unreachable"
        what = f"pool {self.pool_id} failed during the call: {reason}"
        for call in pending.values():
            if not call.abandoned:
                call.on_done(CallFailed(kind, what))


def _parse(frame: bytes) -> expert_pb2.ExecuteResponse:
    """Raises Garbled for bytes that are no such message."""
    try:
        return expert_pb2.ExecuteResponse.FromString(frame)
    except DecodeError as error:
        raise Garbled(f"the pool sent an unreadable frame: {error}") from None


def _code_name(code: int) -> str:
    """NOT_HOLDING, ...; a newer minor version may have codes that are unknown here."""
    if code not in expert_pb2.ErrorCode.values():
        return "UNKNOWN"
    return expert_pb2.ErrorCode.Name(code).removeprefix("ERROR_CODE_")


async def _end_of(stream: grpc.aio.StreamStreamCall) -> str:
    """Why a finished stream ended; empty when it ended with OK."""
    code, details = await stream.code(), await stream.details()
    return "" if code is grpc.StatusCode.OK else f"{code.name}: {details}"
