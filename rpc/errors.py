"""Which exception becomes which gRPC status, and back?"""

import logging
from typing import Any

import grpc

from rpc.logs import cut, printable

log = logging.getLogger(__name__)


class ServiceError(Exception):
    """An error to show to the caller, with the status that tells what to do about it."""

    status = grpc.StatusCode.INTERNAL


class Overloaded(ServiceError):
    """Queues are full: try again later."""

    status = grpc.StatusCode.RESOURCE_EXHAUSTED


class NotReady(ServiceError):
    """Not loaded, draining, or a piece has no holder: try again, or elsewhere."""

    status = grpc.StatusCode.UNAVAILABLE


class Forbidden(ServiceError):
    """The caller is not who it says it is."""

    status = grpc.StatusCode.PERMISSION_DENIED


class Mismatch(ServiceError):
    """Another checkpoint or protocol: repeating does not help, an operator must act."""

    status = grpc.StatusCode.FAILED_PRECONDITION


MAX_MESSAGE_CHARS = 1000
"""A trailer has room for 16 kB, and a character may take 12 bytes of it."""


def status_of(error: Exception) -> tuple[grpc.StatusCode, str]:
    """An exception's status and one-line message; the text of unexpected ones is not shown."""
    if isinstance(error, ServiceError):
        return error.status, _message(error)
    if isinstance(error, ValueError):
        return grpc.StatusCode.INVALID_ARGUMENT, _message(error)
    return grpc.StatusCode.INTERNAL, "internal error; the service's log has the details"


def _message(error: Exception) -> str:
    return cut(printable(cut(str(error), MAX_MESSAGE_CHARS)), MAX_MESSAGE_CHARS)


async def abort_with(context: Any, error: Exception) -> None:
    """End an aio RPC with the status of `error`; unexpected ones are logged with traceback."""
    status, message = status_of(error)
    if status is grpc.StatusCode.INTERNAL:
        log.error("unexpected error in an RPC", exc_info=error)
    await context.abort(status, message)
