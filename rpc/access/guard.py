"""Which calls reach a service's methods? Those of allowed roles, within limits, that can be parsed.

Checked in this order for every method of every service: a message of a caller without the role is
never parsed, and a caller that opens too many streams only blocks itself.
"""

import asyncio
import contextlib
import functools
import inspect
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError

from rpc.access.tls import require_role

Method = TypeVar("Method", bound=Callable[..., Any])

log = logging.getLogger(__name__)

OPEN_SERVICES = ("/grpc.health.v1.Health/", "/grpc.reflection.")
"""Open to every certificate of the mesh; they reveal nothing about requests."""
HEALTH_CHECK = "/grpc.health.v1.Health/Check"
MESSAGE_TIMEOUT_S = 30.0
"""How long a unary call may wait for its message; streams limit their first frame themselves."""
_ROLES = "allowed_roles"


def callable_by(*roles: str) -> Callable[[Method], Method]:
    """Marks a servicer's method with the roles that may call it. Unmarked methods are refused."""

    def mark(method: Method) -> Method:
        setattr(method, _ROLES, roles)
        return method

    return mark


@dataclass(frozen=True, kw_only=True)
class CallBounds:
    """Most calls in flight, streams included: per connection, and in total."""

    per_connection: int = 256
    total: int = 4096

    def __post_init__(self) -> None:
        if not 1 <= self.per_connection <= self.total:
            raise ValueError(f"expected 1 <= per_connection <= total, got {self}")


DEFAULT_BOUNDS = CallBounds()


class Unreadable(ValueError):
    """The bytes are not a message of the expected type."""


class CallGuard(grpc.aio.ServerInterceptor):
    """An interceptor that wraps each method of a server."""

    def __init__(self, bounds: CallBounds, *, tls: bool):
        self._bounds = bounds
        self._tls = tls
        self._num_open = 0
        self._of_connection: Counter[str] = Counter()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None  # gRPC answers UNIMPLEMENTED
        kind = (
            f"{'stream' if handler.request_streaming else 'unary'}_"
            f"{'stream' if handler.response_streaming else 'unary'}"
        )
        method = getattr(handler, kind)
        admitted = functools.partial(
            self._admitted, handler_call_details.method, getattr(method, _ROLES, ())
        )
        # gRPC sees each request as a stream: with a unary handler it would receive the message
        # before the call could be refused, and wait for one that never comes without counting it.
        received = _whole if handler.request_streaming else _only

        async def generate(requests: Any, context: Any) -> AsyncIterator[Any]:
            async with admitted(context):
                responses = method(await received(requests), context)
                async with contextlib.aclosing(responses):
                    async for response in responses:
                        yield response

        async def call(requests: Any, context: Any) -> Any:
            async with admitted(context):
                return await method(await received(requests), context)

        make_handler = (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
        return make_handler(
            generate if inspect.isasyncgenfunction(method) else call,
            request_deserializer=_reader_of(handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )

    @contextlib.asynccontextmanager
    async def _admitted(
        self, method: str, roles: Sequence[str], context: Any
    ) -> AsyncIterator[None]:
        """Aborts with PERMISSION_DENIED, RESOURCE_EXHAUSTED or INVALID_ARGUMENT."""
        if not method.startswith(OPEN_SERVICES):
            await require_role(context, roles, tls=self._tls)
        peer = context.peer()
        self._num_open += 1
        self._of_connection[peer] += 1
        try:
            if method != HEALTH_CHECK:  # a probe is answered in any case
                await self._check_bounds(peer, context)
            try:
                yield
            except Unreadable as error:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except grpc.aio.InternalError as error:
            # A frame was being written to a caller that does not read or is gone, so no status can
            # be sent. gRPC would log a traceback for each.
            log.debug("%s ended without a status: %s", method, error)
        finally:
            self._num_open -= 1
            self._of_connection[peer] -= 1
            if not self._of_connection[peer]:
                del self._of_connection[peer]

    async def _check_bounds(self, peer: str, context: Any) -> None:
        for count, bound, whose in (
            (self._of_connection[peer], self._bounds.per_connection, "of one connection"),
            (self._num_open, self._bounds.total, "at once"),
        ):
            if count > bound:
                await context.abort(
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    f"this service takes at most {bound} calls {whose}: end some, or try later",
                )


async def _whole(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    return requests


async def _only(requests: AsyncIterator[Any]) -> Any:
    """The one message of a call. Raises Unreadable when none comes."""
    try:
        async with asyncio.timeout(MESSAGE_TIMEOUT_S):
            async for request in requests:
                return request
    except TimeoutError:
        raise Unreadable(f"unreadable message: none came within {MESSAGE_TIMEOUT_S:g} s") from None
    raise Unreadable("unreadable message: none was sent")


def _reader_of(deserializer: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    """The deserializer, raising Unreadable instead of protobuf's error."""
    if deserializer is None:
        return lambda data: data

    def read(data: bytes) -> Any:
        try:
            return deserializer(data)
        except DecodeError as error:
            raise Unreadable(f"unreadable message: {error}") from None

    return read
