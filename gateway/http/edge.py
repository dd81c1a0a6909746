"""What wraps every request? A request id, bounds on its body, and errors in one shape."""

import logging
import re
import secrets
from http import HTTPStatus

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.errors import NOT_FOUND, ApiError, internal
from gateway.http.respond import ClientGone
from gateway.limits import Limits

log = logging.getLogger(__name__)

_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._:\-]{1,128}")


class EdgeMiddleware:
    """Outermost: `x-request-id` on every reply; no exception passes."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except ApiError as error:
            await error.response()(scope, receive, send_with_id)
        except (ClientGone, ClientDisconnect):
            log.debug("request %s: the client left", request_id)
            await _nobody_listens(scope, receive, send_with_id)
        # The outermost net: logged with its traceback, answered as 500 where that is still possible.
        except Exception:
            log.exception("request %s failed", request_id)
            if started:
                raise
            await internal().response()(scope, receive, send_with_id)


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            given = value.decode("latin-1")
            if _SANE_REQUEST_ID.fullmatch(given):
                return given
    return "req_" + secrets.token_hex(12)


async def _nobody_listens(scope: Scope, receive: Receive, send: Send) -> None:
    """Complete the exchange for the server's sake; 499 is what proxies log for it."""
    await ApiError(499, "client closed the connection").response()(scope, receive, send)


class BodyLimit:
    """413 beyond the cap, 415 for compressed bodies; both before anything is parsed."""

    def __init__(self, app: ASGIApp, limits: Limits):
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        encoding = headers.get(b"content-encoding", b"identity").strip().lower()
        if encoding not in (b"identity", b""):
            raise ApiError(
                415,
                "Content-Encoding is not supported: send the body uncompressed",
                code="unsupported_content_encoding",
            )
        announced = headers.get(b"content-length", b"0")
        if announced.isdigit() and int(announced[:20]) > self._limits.body_bytes:
            raise self._too_large()
        received = 0

        async def receive_limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limits.body_bytes:
                raise self._too_large()
            return message

        await self._app(scope, receive_limited, send)

    def _too_large(self) -> ApiError:
        return ApiError(
            413,
            f"Request entity too large: the body has more than {self._limits.body_bytes} bytes",
            code="request_too_large",
            headers={"Connection": "close"},
        )


def http_error(error: HTTPException) -> ApiError:
    """Routing errors (404, 405) in OpenAI's shape; the body never repeats the path."""
    if error.status_code == HTTPStatus.NOT_FOUND:
        return ApiError(
            404, "Unknown path; GET /docs lists what is served", type=NOT_FOUND, code="not_found"
        )
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return ApiError(
            405,
            "This path does not take that method; GET /docs lists what is served",
            code="method_not_allowed",
            headers=error.headers,
        )
    return ApiError(error.status_code, str(error.detail), headers=error.headers)
