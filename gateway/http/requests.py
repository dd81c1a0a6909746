"""How does an endpoint read its request, and how is the request counted?"""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from gateway.errors import Kind, RequestError
from gateway.http.auth import ANONYMOUS
from gateway.http.context import Gateway
from gateway.http.request_record import RequestRecord, outcome_of_error
from gateway.http.respond import ClientGone
from gateway.http.strict_json import parse_object
from gateway.limits import Limits

Result = TypeVar("Result")

SESSION_HEADERS = (
    "x-claude-code-session-id",
    "x-session-id",  # OpenCode, as is the next one
    "x-session-affinity",
)
"""In which a client names its session, whichever API it speaks."""


def json_response(value: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status_code=status, media_type="application/json")


def gateway_of(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway


def client_of_request(request: Request) -> str:
    """Whose share of every queue it counts towards: its key's; "" where no key is needed."""
    key_id: str = request.state.key_id
    return "" if key_id == ANONYMOUS else key_id


def session_of(headers: Mapping[str, str], *hints: object) -> str:
    """What ties requests of one conversation together: a digest of its name; "" without one.

    The name is the first text among SESSION_HEADERS and then `hints`, an API's own fields.
    """
    named = (*map(headers.get, SESSION_HEADERS), *hints)
    hint = next((hint for hint in named if isinstance(hint, str) and hint), None)
    return "" if hint is None else hashlib.sha256(hint.encode()).hexdigest()


def thinking_scope(request: Request, tenant: str, session: str) -> str | None:
    """Within which thinking is put back into turns that lack it; None: it is not.

    Where nobody needs a key, tenants are no bound, and one conversation is, if the client names it.
    """
    mode = gateway_of(request).config.restore_thinking
    if mode == "off":
        return None
    if request.state.key_id != ANONYMOUS or mode == "always":
        return tenant
    return f"{tenant}\0{session}" if session else None


async def read_object(
    request: Request, limits: Limits, *, history: str | None = None
) -> dict[str, Any]:
    """The JSON object of the body; `history` as in `parse_object`. Raises RequestError."""
    content_type = request.headers.get("content-type", "application/json")
    kind = content_type.partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise RequestError(
            Kind.UNSUPPORTED_MEDIA,
            "Content-Type must be application/json",
            reason="unsupported_content_type",
        )
    body = await request.body()
    return await off_loop(request, len(body), lambda: parse_object(body, limits, history))


async def off_loop(request: Request, size_bytes: int, work: Callable[[], Result]) -> Result:
    """What `work` returns; for a large body it runs on a thread, in the client's turn."""
    gateway = gateway_of(request)
    if size_bytes <= gateway.limits.json_inline_bytes:
        return work()
    return await gateway.encoder.threads.run(client_of_request(request), work)


@contextlib.contextmanager
def counted(request: Request) -> Iterator[None]:
    """A place among its key's requests. Raises RequestError when the key has too many in flight."""
    slots, key_id = gateway_of(request).slots, request.state.key_id
    slots.acquire(key_id)
    try:
        yield
    finally:
        slots.release(key_id)


@contextlib.contextmanager
def recorded(request: Request, api: str) -> Iterator[RequestRecord]:
    """A place among its key's requests, and a record of how this one ends.

    An error that is raised ends the record; otherwise `answer` does. Raises RequestError when the
    key has too many requests in flight.
    """
    gateway = gateway_of(request)
    key_id: str = request.state.key_id
    record = RequestRecord(gateway.metrics, api)
    try:
        gateway.slots.acquire(key_id)
        record.on_end = lambda: gateway.slots.release(key_id)
        yield record
    except RequestError as error:
        record.end(outcome_of_error(error.kind))
        raise
    except (ClientGone, ClientDisconnect):
        record.end("disconnected")
        raise
    except BaseException:
        record.end("error")
        raise
