"""How does a request reach its endpoint, and how is its end counted?"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from gateway.errors import ApiError
from gateway.generate.request import client_of_request
from gateway.http.context import Gateway
from gateway.http.respond import ClientGone
from gateway.http.strict_json import parse_object
from gateway.limits import Limits
from gateway.metrics import RequestRecord, outcome_of_status

Result = TypeVar("Result")


def gateway_of(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway


async def read_object(request: Request, limits: Limits) -> dict[str, Any]:
    """The JSON object of the body. Raises ApiError 400 or 415."""
    content_type = request.headers.get("content-type", "application/json")
    kind = content_type.partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise ApiError(
            415, "Content-Type must be application/json", code="unsupported_content_type"
        )
    body = await request.body()
    return await off_loop(request, len(body), lambda: parse_object(body, limits))


async def off_loop(request: Request, size_bytes: int, work: Callable[[], Result]) -> Result:
    """What `work` returns, done in the client's turn on a thread if so many bytes take long."""
    gateway = gateway_of(request)
    if size_bytes <= gateway.limits.json_inline_bytes:
        return work()
    return await gateway.encoder.threads.run(client_of_request(request), work)


@contextlib.contextmanager
def counted(request: Request) -> Iterator[None]:
    """A place among its key's requests. Raises ApiError 429 when the key has too many in flight."""
    slots, key_id = gateway_of(request).slots, request.state.key_id
    slots.acquire(key_id)
    try:
        yield
    finally:
        slots.release(key_id)


@contextlib.contextmanager
def recorded(request: Request, api: str) -> Iterator[RequestRecord]:
    """A place among its key's requests, and a record of how this one ends.

    An error that passes ends the record; else whoever answers ends it. Raises ApiError 429 when
    the key has too many requests in flight.
    """
    gateway = gateway_of(request)
    key_id: str = request.state.key_id
    record = RequestRecord(gateway.metrics, gateway.status_line, api)
    try:
        gateway.slots.acquire(key_id)
        record.on_end = lambda: gateway.slots.release(key_id)
        yield record
    except ApiError as error:
        record.end(outcome_of_status(error.status))
        raise
    except (ClientGone, ClientDisconnect):
        record.end("disconnected")
        raise
    except BaseException:
        record.end("error")
        raise
