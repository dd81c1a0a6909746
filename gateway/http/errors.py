"""How does HTTP say that a request has failed? Status and headers; the body is the dialect's."""

import math
from collections.abc import Awaitable, Callable

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route

from gateway.errors import Kind, RequestError
from gateway.http.dialect import ErrorShape

STATUS = {
    Kind.INVALID_REQUEST: 400,
    Kind.UNAUTHENTICATED: 401,
    Kind.FORBIDDEN: 403,
    Kind.NOT_FOUND: 404,
    Kind.MODEL_NOT_FOUND: 404,
    Kind.TOO_LARGE: 413,
    Kind.UNSUPPORTED_MEDIA: 415,
    Kind.OVERLOADED: 429,
    Kind.CLIENT_GONE: 499,
    Kind.INTERNAL: 500,
    Kind.BROKEN_UPSTREAM: 502,
    Kind.NOT_READY: 503,
    Kind.TIMED_OUT: 504,
}
"""What a dialect answers by default; 499 is what proxies log for a client that left."""

MIN_RETRY_S = 1
MAX_RETRY_S = 60
_HEADERS = {
    Kind.UNAUTHENTICATED: {"WWW-Authenticate": "Bearer"},
    Kind.TOO_LARGE: {"Connection": "close"},
}
_ROUTING: dict[int, tuple[Kind, str, str | None]] = {
    404: (Kind.NOT_FOUND, "Unknown path; GET /docs lists what is served", "not_found"),
    405: (
        Kind.INVALID_REQUEST,
        "This path does not take that method; GET /docs lists what is served",
        "method_not_allowed",
    ),
}


def retry_after(wait_s: float) -> int:
    """Whole seconds for a Retry-After header."""
    return math.ceil(min(max(wait_s, MIN_RETRY_S), MAX_RETRY_S))


def error_response(error: RequestError, shape: ErrorShape, request_id: str) -> Response:
    headers = dict(_HEADERS.get(error.kind, {}))
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(retry_after(error.retry_after_s))
    return Response(
        shape.body(error, request_id),
        status_code=shape.status(error),
        headers=headers,
        media_type="application/json",
    )


def refusing(why: str) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint that does nothing."""

    async def refuse(request: Request) -> Response:
        raise RequestError(Kind.FORBIDDEN, f"Not done: {why}", reason="not_served")

    return refuse


async def routing_error(request: Request, error: Exception) -> Response:
    """Unknown paths and methods, with the router's own status; the body never repeats the path."""
    assert isinstance(error, HTTPException)
    other = Kind.INVALID_REQUEST, str(error.detail), None
    kind, what, reason = _ROUTING.get(error.status_code, other)
    told = RequestError(kind, what, reason=reason)
    return Response(
        request.state.dialect.errors.body(told, request.state.request_id),
        status_code=error.status_code,
        headers={"Allow": _allowed(request)} if error.status_code == 405 else error.headers,
        media_type="application/json",
    )


def _allowed(request: Request) -> str:
    """The methods of all routes of this path, where the router names those of the first."""
    routes = [
        route
        for route in request.app.routes
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE
    ]
    plainest = min((route.path for route in routes), key=lambda path: path.count("{"), default="")
    methods = {method for one in routes if one.path == plainest for method in one.methods or ()}
    return ", ".join(sorted(methods))
