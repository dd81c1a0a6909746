"""What wraps every request? A request id, bounds on its body, and errors in one shape."""

import logging
import re
import secrets
from collections.abc import Sequence

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.errors import Kind, RequestError, internal
from gateway.http.compressed import DECODERS, Expander, check_encoding, expanding
from gateway.http.dialect import Dialect, dialect_of
from gateway.http.errors import error_response
from gateway.http.respond import ClientGone
from gateway.limits import Limits

log = logging.getLogger(__name__)

_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._:\-]{1,128}")


class EdgeMiddleware:
    """Outermost: `x-request-id` on every reply; no exception passes."""

    def __init__(self, app: ASGIApp, dialects: Sequence[Dialect]):
        self._app = app
        self._dialects = dialects

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = _request_id(scope)
        names = {name for name, _ in scope["headers"]}
        dialect = dialect_of(scope["path"], names, self._dialects)
        scope.setdefault("state", {}).update(request_id=request_id, dialect=dialect)
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                if dialect.request_id_header:
                    headers[dialect.request_id_header] = request_id
            await send(message)

        async def tell(error: RequestError) -> None:
            await error_response(error, dialect.errors, request_id)(scope, receive, send_with_id)

        try:
            await self._app(scope, receive, send_with_id)
        except RequestError as error:
            await tell(error)
        except (ClientGone, ClientDisconnect):
            log.debug("request %s: the client left", request_id)
            # Nobody reads this, but the server expects an answer.
            await tell(RequestError(Kind.CLIENT_GONE, "client closed the connection"))
        # Logged with its traceback, and answered as 500 if no answer has begun.
        except Exception:
            log.exception("request %s failed", request_id)
            if started:
                raise
            await tell(internal())


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            given = value.decode("latin-1")
            if _SANE_REQUEST_ID.fullmatch(given):
                return given
    return "req_" + secrets.token_hex(12)


class BodyLimit:
    """413 beyond the cap, 415 for unknown encodings; both before anything is parsed.

    A compressed body has the same cap twice: as it comes, and while it is expanded.
    """

    def __init__(self, app: ASGIApp, limits: Limits):
        self._app = app
        self._most_bytes = limits.body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        encoding = headers.get(b"content-encoding", b"").strip().lower()
        check_encoding(encoding)
        announced = headers.get(b"content-length", b"0")
        if announced.isdigit() and int(announced[:20]) > self._most_bytes:
            raise self._too_large()
        body = self._limited(receive)
        if encoding in DECODERS:
            body = self._limited(expanding(body, Expander(encoding, self._most_bytes)))
        await self._app(scope, body, send)

    def _limited(self, receive: Receive) -> Receive:
        received = 0

        async def receive_limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._most_bytes:
                raise self._too_large()
            return message

        return receive_limited

    def _too_large(self) -> RequestError:
        return RequestError(
            Kind.TOO_LARGE,
            f"Request entity too large: the body has more than {self._most_bytes} bytes",
            reason="request_too_large",
        )


class HeadAsGet:
    """HEAD is answered wherever GET is, as GET is; the server below leaves the body out."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        await self._app(scope, receive, send)
