"""Does the request come from where it says? Against DNS rebinding and foreign web pages.

A web page can make a browser call any address, also 127.0.0.1, and with a rebound DNS name it can
even read the answer. Only pages of the gateway itself and of the origins in --cors-origin may call
and read. On a loopback address, Host must be a name that public DNS cannot assign: this machine's
own, those reserved for local networks, or one of --allowed-host. On other addresses the API key
protects; without keys an Origin must be this server's own.
"""

from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.errors import Kind, RequestError
from rpc.access.host_names import HostNames, ip_of, name_of, normal

_DEFAULT_PORTS = {"http": 80, "https": 443}


class Trust:
    """Which host names and origins may call."""

    def __init__(
        self,
        *,
        hosts: Sequence[str] = (),
        origins: Sequence[str] = (),
        machine_name: str | None = None,
    ):
        """`hosts` and `origins` are those that flags allow; `machine_name` is this machine's."""
        self._names = HostNames(hosts, machine_name)
        self._origins = frozenset(origin.rstrip("/").lower() for origin in origins)

    def serves(self, name: str) -> bool:
        """Whether a request to this name may be meant for us."""
        return is_local_name(name) or self._names.serves(name)

    def owns(self, name: str) -> bool:
        """Whether the name is this machine's, or one that a flag allows."""
        return is_local_name(name) or self._names.owns(name)

    def may_read(self, origin: str) -> bool:
        """Whether pages of this origin, which is another's, may call and read the answer."""
        return "*" in self._origins or origin.lower() in self._origins


class HostGuard:
    """403 for a foreign Host or Origin."""

    def __init__(self, app: ASGIApp, *, trust: Trust, is_loopback: bool, has_keys: bool):
        self._app = app
        self._trust = trust
        self._is_loopback = is_loopback
        self._has_keys = has_keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        self._check(headers.get(b"host"), headers.get(b"origin"))
        await self._app(scope, receive, send)

    def _check(self, host: bytes | None, origin: bytes | None) -> None:
        """`host` is absent only in HTTP/1.0, which no browser speaks."""
        host_name = name_of((host or b"").decode("latin-1")) or ""
        if self._is_loopback and host is not None and not self._trust.serves(host_name):
            raise _refused("Host", "this address answers to this machine only", "--allowed-host")
        if origin is None or self._trust.may_read(origin.decode("latin-1")):
            return
        is_own = _is_own(origin.decode("latin-1"), (host or b"").decode("latin-1"))
        if self._is_loopback:
            allowed = is_own and self._trust.owns(host_name)
        else:
            allowed = is_own or self._has_keys
        if not allowed:
            raise _refused("Origin", "other sites' pages may not call", "--cors-origin")


class Cors(CORSMiddleware):
    """CORS headers for the origins that may read, errors included, so that pages can show them."""

    def __init__(self, app: ASGIApp, *, trust: Trust):
        super().__init__(
            app,
            allow_methods=["GET", "HEAD", "POST"],
            allow_headers=["*"],
            expose_headers=["x-request-id", "request-id", "retry-after"],
            allow_private_network=True,
        )
        self._trust = trust

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        origin = dict(scope["headers"]).get(b"origin")
        if origin is not None and not self.is_allowed_origin(origin.decode("latin-1")):
            await self.app(scope, receive, send)  # no CORS headers: the page cannot read the answer
            return
        await super().__call__(scope, receive, send)

    def is_allowed_origin(self, origin: str) -> bool:
        return self._trust.may_read(origin)


def is_local_name(name: str) -> bool:
    """localhost and names below it, loopback addresses, and 0.0.0.0, which leads there too."""
    name = normal(name)
    address = ip_of(name)
    if address is None:
        return name == "localhost" or name.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


def _is_own(origin: str, host: str) -> bool:
    """Whether a page of this origin came from the server that it calls."""
    try:
        page, called = urlsplit(origin), urlsplit(f"//{host}")
        default = _DEFAULT_PORTS.get(page.scheme)
        ports = page.port or default, called.port or default
    except ValueError:
        return False
    return page.hostname is not None and page.hostname == called.hostname and ports[0] == ports[1]


def _refused(header: str, why: str, flag: str) -> RequestError:
    return RequestError(
        Kind.FORBIDDEN,
        f"{header} header not allowed: {why}; allow it with {flag}",
        reason="forbidden_origin",
    )
