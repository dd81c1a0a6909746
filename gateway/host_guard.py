"""Does the request come from where it says? Against DNS rebinding and foreign web pages.

A web page can make a browser call any address, also 127.0.0.1, and with a rebound DNS name it can
even read the answer. On a loopback bind only loopback names are accepted in Host and Origin
(plus the origins of --cors-origin). On other binds a key is what protects; without keys an Origin
must be this server's own.
"""

import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.errors import PERMISSION, ApiError


class HostGuard:
    """403 for a foreign Host or Origin."""

    def __init__(self, app: ASGIApp, *, is_loopback: bool, has_keys: bool, origins: Sequence[str]):
        self._app = app
        self._is_loopback = is_loopback
        self._has_keys = has_keys
        self._origins = frozenset(origin.rstrip("/").lower() for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = dict(scope["headers"])
            self._check(headers.get(b"host"), headers.get(b"origin"))
        await self._app(scope, receive, send)

    def _check(self, host: bytes | None, origin: bytes | None) -> None:
        """`host` is absent only in HTTP/1.0, which no browser speaks."""
        host_name = _host_of("//" + host.decode("latin-1")) if host is not None else None
        if self._is_loopback and host is not None and not is_loopback_name(host_name):
            raise _refused("Host", "this address answers to localhost and loopback addresses only")
        if origin is None or "*" in self._origins:
            return
        text = origin.decode("latin-1").lower()
        if text in self._origins:
            return
        name = _host_of(text)
        if self._is_loopback:
            if not is_loopback_name(name):
                raise _refused("Origin", "allow it with --cors-origin")
        elif not self._has_keys and (name is None or name != host_name):
            raise _refused("Origin", "allow it with --cors-origin")


def is_loopback_name(name: str | None) -> bool:
    """localhost, 127.0.0.0/8 or ::1."""
    if name is None:
        return False
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _host_of(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _refused(header: str, hint: str) -> ApiError:
    return ApiError(
        403, f"{header} header not allowed: {hint}", type=PERMISSION, code="forbidden_origin"
    )
