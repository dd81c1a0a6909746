"""How does a pool answer gRPC? Execute streams and DescribePool.

Decode, call, encode. A bad field ends its call, never the stream. Only another
protocol, another checkpoint, or a frame without a usable call_id ends the
stream; other streams are not affected.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from expert_svc.calls import Call, Corrupt, FrameReader
from expert_svc.canary import WeightsChanged
from expert_svc.compute import NotHolding, suspects
from expert_svc.executor import Executor
from expert_svc.metrics import ExpertMetrics
from expert_svc.weight_store import WeightStore
from moe_model.device_failures import is_fatal
from protos import expert_pb2
from rpc.access.guard import callable_by
from rpc.config import PROTOCOL_MAJOR, PROTOCOL_MINOR
from rpc.hop.codec import HopCodec, to_bytes
from rpc.hop.frame_writer import FrameWriter
from rpc.hop.tensor_codec import WIRE_DTYPES
from rpc.logs import printable

log = logging.getLogger(__name__)

MAX_INFLIGHT_CALLS = 64
HELLO_TIMEOUT_S = 10.0
SERVICE_NAME = "expertmesh.expert.v1.ExpertPool"


@dataclass(frozen=True, kw_only=True)
class PoolIdentity:
    """Who this pool is, as its Hello says."""

    pool_id: str
    incarnation: int
    checkpoint_id: str
    numerics_id: str


class CallerStream:
    """One Execute stream: its calls in flight, and the writer of its answers."""

    def __init__(self, context: Any, caller_id: str):
        self.context = context
        self.caller_id = caller_id
        self.inflight: dict[int, Call] = {}
        self.inflight_rows = 0
        self.sent_unknown = False
        # A caller that is gone or does not read must not hold up the others' answers.
        self.writer = FrameWriter(context.write)

    def may_use(self, call_id: int) -> bool:
        return call_id != 0 and call_id not in self.inflight

    def open(self, call: Call) -> None:
        self.inflight[call.call_id] = call
        self.inflight_rows += call.num_rows

    def close(self, call: Call) -> None:
        self.inflight.pop(call.call_id, None)
        self.inflight_rows -= call.num_rows

    async def answered(self) -> None:
        """Wait until every answer is written: a caller may half-close and still read."""
        while self.inflight:
            await asyncio.sleep(0.005)
        await self.writer.flushed()


class ExpertServicer:
    """ExpertPool (protos/expert.proto); Execute frames are bytes in both directions.

    Serves what the store holds. `draining` refuses new calls, so that they go elsewhere.
    """

    def __init__(
        self,
        identity: PoolIdentity,
        store: WeightStore,
        executor: Executor,
        metrics: ExpertMetrics,
        codec: HopCodec,
        *,
        max_rows: int,
        try_experts: Callable[[Iterable[tuple[int, int]]], Awaitable[None]],
    ):
        """`try_experts` raises WeightsChanged or NotHolding (Canary.try_now)."""
        self._identity = identity
        self._store = store
        self._executor = executor
        self._metrics = metrics
        self._max_rows = max_rows
        self._max_inflight_rows = 4 * max_rows
        self._codec = codec
        self._reader = FrameReader(
            store.config, dtype=store.dtype, max_rows=max_rows, native=codec.native
        )
        self._try_experts = try_experts
        self._trials: set[asyncio.Task[None]] = set()
        self.streams: set[CallerStream] = set()
        self.calls_total = 0
        self.draining = False

    def add_to(self, server: grpc.aio.Server) -> None:
        """Register the service. The generated function would parse every frame into a message."""
        handlers = {
            "Execute": grpc.stream_stream_rpc_method_handler(
                self.Execute, response_serializer=to_bytes
            ),
            "DescribePool": grpc.unary_unary_rpc_method_handler(
                self.DescribePool, expert_pb2.DescribePoolRequest.FromString, to_bytes
            ),
        }
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE_NAME, handlers),)
        )

    def hello(self) -> expert_pb2.PoolHello:
        return expert_pb2.PoolHello(
            protocol_major=PROTOCOL_MAJOR,
            protocol_minor=PROTOCOL_MINOR,
            checkpoint_id=self._identity.checkpoint_id,
            numerics_id=self._identity.numerics_id,
            pool_id=self._identity.pool_id,
            incarnation=self._identity.incarnation,
            accepted_dtypes=[WIRE_DTYPES[self._store.dtype]],
            max_rows=self._max_rows,
            credit=expert_pb2.Credit(
                max_inflight_calls=MAX_INFLIGHT_CALLS, max_inflight_rows=self._max_inflight_rows
            ),
            pieces=self._store.pieces.to_message(),
        )

    @callable_by("attention", "cli", "router")
    async def DescribePool(
        self, request: expert_pb2.DescribePoolRequest, context: Any
    ) -> expert_pb2.DescribePoolResponse:
        return expert_pb2.DescribePoolResponse(
            hello=self.hello(),
            weight_bytes=self._store.size_bytes,
            calls_total=self.calls_total,
            streams=len(self.streams),
            queued_calls=self._executor.waiting,
        )

    @callable_by("attention")
    async def Execute(self, request_iterator: Any, context: Any) -> None:
        stream = await self._greet(context)
        self.streams.add(stream)
        self._metrics.streams.inc()
        try:
            while True:
                frame = await context.read()
                if frame is grpc.aio.EOF:
                    await stream.answered()
                    return
                await self._frame(stream, frame)
                if stream.writer.unsent > MAX_INFLIGHT_CALLS:
                    await stream.writer.flushed()  # the caller does not read: accept no more
        except Exception as error:
            if not is_fatal(error):
                raise
            # The executor ends the process, and tells why in one line.
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the pool's memory or device failed")
        finally:
            stream.writer.close()
            self.streams.discard(stream)
            self._metrics.streams.dec()
            for call in stream.inflight.values():
                call.cancelled = True  # its caller is gone
            log.info("caller %s left", stream.caller_id)

    async def _greet(self, context: Any) -> CallerStream:
        """The Hello exchange; aborts the stream on another protocol or checkpoint."""
        try:
            frame = await asyncio.wait_for(context.read(), HELLO_TIMEOUT_S)
        except TimeoutError:
            frame = grpc.aio.EOF
        request = await _parse(b"" if frame is grpc.aio.EOF else frame, context)
        if request.WhichOneof("frame") != "hello":
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the first frame must be hello")
        hello = request.hello
        if hello.protocol_major != PROTOCOL_MAJOR:
            await context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"protocol major {hello.protocol_major}; this pool speaks {PROTOCOL_MAJOR}",
            )
        if hello.checkpoint_id != self._identity.checkpoint_id:
            await context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"checkpoint_id {hello.checkpoint_id[:64]!r} differs from this pool's "
                f"{self._identity.checkpoint_id!r}",
            )
        caller_id = printable(hello.caller_id[:100]) or "unnamed"
        log.info("caller %s joined", caller_id)
        await context.write(expert_pb2.ExecuteResponse(hello=self.hello()))
        return CallerStream(context, caller_id)

    async def _frame(self, stream: CallerStream, frame: bytes) -> None:
        received_s = time.monotonic()
        call = self._reader.read_plain(frame, received_s)
        if call is not None:
            if not stream.may_use(call.call_id):
                await _abort_call_id(stream, call.call_id)
            self._start(stream, call)
            return
        request = await _parse(frame, stream.context)
        kind = request.WhichOneof("frame")
        if kind == "execute":
            await self._execute(stream, request.execute, received_s)
        elif kind == "ping":
            pong = expert_pb2.Pong(nonce=request.ping.nonce)
            stream.writer.push(expert_pb2.ExecuteResponse(pong=pong))
        elif kind == "cancel":
            call = stream.inflight.get(request.cancel.call_id)
            if call is not None:
                call.cancelled = True
        else:  # a second hello, or a frame of a newer minor version
            if not stream.sent_unknown:
                stream.sent_unknown = True
                log.warning("caller %s sends unknown frames (%s)", stream.caller_id, kind)
            if kind == "hello":
                await stream.context.abort(
                    grpc.StatusCode.INVALID_ARGUMENT, "hello may come only once"
                )

    async def _execute(
        self, stream: CallerStream, frame: expert_pb2.Execute, received_s: float
    ) -> None:
        """An Execute that the fast path did not accept: read it in full, or refuse it."""
        if not stream.may_use(frame.call_id):
            await _abort_call_id(stream, frame.call_id)
        try:
            call = self._reader.read(frame, received_s)
        except ValueError as error:
            code = "CORRUPT" if isinstance(error, Corrupt) else "INVALID_ARGUMENT"
            self._refuse(stream, frame.call_id, code, str(error))
            return
        self._start(stream, call)

    def _start(self, stream: CallerStream, call: Call) -> None:
        """Compute the call now, or queue it, or refuse it."""
        if self.draining:
            self._refuse(stream, call.call_id, "DRAINING", "the pool is leaving")
            return
        over_calls = len(stream.inflight) >= MAX_INFLIGHT_CALLS
        if over_calls or stream.inflight_rows + call.num_rows > self._max_inflight_rows:
            self._refuse(stream, call.call_id, "RESOURCE_EXHAUSTED", "beyond this stream's credit")
            return
        stream.open(call)
        outcome = self._executor.try_inline(call)
        if outcome is not None:
            self._answer(stream, call, *outcome)
        else:
            self._executor.submit(stream.caller_id, call, partial(self._answer, stream))

    def _answer(
        self, stream: CallerStream, call: Call, result: Any, queue_us: int, compute_us: int
    ) -> None:
        failed = isinstance(result, BaseException)
        # Send the answer first and count it afterwards; the next frame is not read before that.
        if failed:
            self._failed(stream, call, result)
        else:
            frame = self._codec.build_result(call.call_id, queue_us, compute_us, result)
            if frame is None:
                kept = result.clone()  # the next call may write into its memory
                trial = asyncio.create_task(self._try(stream, call, kept, queue_us, compute_us))
                self._trials.add(trial)
                trial.add_done_callback(self._trials.discard)
                return
            stream.writer.push(frame)
        stream.close(call)
        self.calls_total += 1
        if not failed:
            self._metrics.observe_call(
                "decode" if call.is_decode else "prefill",
                queue_s=queue_us / 1e6,
                compute_s=compute_us / 1e6,
                num_rows=call.num_rows,
            )

    async def _try(
        self, stream: CallerStream, call: Call, result: Any, queue_us: int, compute_us: int
    ) -> None:
        """Handle an answer that is not finite: the rows overflow, or weights are damaged."""
        try:
            await self._try_experts(suspects(call, result))
            frame = self._codec.build_result(
                call.call_id, queue_us, compute_us, result, overflowed=True
            )
            stream.writer.push(frame)
            self._metrics.overflows.inc()
        except WeightsChanged:
            return  # no answer instead of a wrong one; this process is about to end
        except Exception as error:  # _failed chooses the code, and logs unexpected ones
            self._failed(stream, call, error)
        stream.close(call)
        self.calls_total += 1

    def _failed(self, stream: CallerStream, call: Call, error: BaseException) -> None:
        if isinstance(error, NotHolding):
            piece = expert_pb2.Piece(layer_idx=error.layer_idx, expert_id=error.expert_id)
            self._refuse(stream, call.call_id, "NOT_HOLDING", str(error), piece)
        elif isinstance(error, asyncio.CancelledError):
            self._refuse(stream, call.call_id, "CANCELLED", "cancelled by the caller")
        elif isinstance(error, ValueError):
            self._refuse(stream, call.call_id, "INVALID_ARGUMENT", str(error))
        elif isinstance(error, TimeoutError):
            self._refuse(stream, call.call_id, "DEADLINE_EXCEEDED", str(error))
        else:
            log.error("call %d of %s failed", call.call_id, stream.caller_id, exc_info=error)
            self._refuse(stream, call.call_id, "INTERNAL", "the computation failed")

    def _refuse(
        self,
        stream: CallerStream,
        call_id: int,
        code: str,
        message: str,
        piece: expert_pb2.Piece | None = None,
    ) -> None:
        self._metrics.errors.labels(code).inc()
        error = expert_pb2.Error(
            call_id=call_id,
            code=expert_pb2.ErrorCode.Value("ERROR_CODE_" + code),
            message=message,
            not_holding=piece,
        )
        stream.writer.push(expert_pb2.ExecuteResponse(error=error))


async def _abort_call_id(stream: CallerStream, call_id: int) -> None:
    """End the stream: its answers could no longer be told apart."""
    await stream.context.abort(
        grpc.StatusCode.INVALID_ARGUMENT, f"call_id {call_id} is 0 or still in flight"
    )


async def _parse(frame: bytes, context: Any) -> expert_pb2.ExecuteRequest:
    """Parse a frame. Ends the stream if that fails: there is no call_id to answer."""
    try:
        return expert_pb2.ExecuteRequest.FromString(frame)
    except DecodeError as error:
        return await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"unreadable frame: {error}")
