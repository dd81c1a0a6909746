"""Who may call, and as which tenant? One middleware: everything but the probes needs a key."""

import hashlib
import hmac
from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.api_keys import digests
from gateway.errors import Kind, RequestError
from rpc.watched import Watched

PUBLIC_PATHS = frozenset(("/livez", "/readyz", "/health"))
"""Open without a key: probes cannot carry one, and they say nothing about requests."""

ANONYMOUS = "anonymous"


def tenant_of(key_id: str, cache_salt: str) -> str:
    """Whose cached prompts this request may share: those of the same key and the same salt."""
    return cache_salt if key_id == ANONYMOUS else f"{key_id}:{cache_salt}"


class ApiKeys:
    """The accepted keys, as hashes; comparing takes the same time whatever is presented."""

    def __init__(self, keys: Sequence[str], file: Watched[tuple[bytes, ...]] | None = None):
        """`file`: hashes of further keys, which may change while requests run."""
        self._digests = digests(keys)
        self._file = file

    @property
    def required(self) -> bool:
        return bool(self._digests) or self._file is not None

    def key_id(self, authorization: Sequence[bytes], x_api_key: Sequence[bytes] = ()) -> str | None:
        """Which key these headers present; None for none, a wrong one or different ones.

        A key may come as a bearer token or as x-api-key, and the same key as both. Clients without
        a key for x-api-key may send it empty.

        The name comes from the key alone, so that several gateways agree on it.
        """
        if not self.required:
            return ANONYMOUS
        tokens = {value.strip() for value in x_api_key if value.strip()}
        tokens |= set(map(_bearer_token, authorization))
        if len(tokens) != 1 or max(len(authorization), len(x_api_key)) > 1:
            return None
        presented = hashlib.sha256(tokens.pop()).digest()
        accepted = self._digests + (self._file.get() if self._file is not None else ())
        matches = [hmac.compare_digest(presented, digest) for digest in accepted]
        return f"key-{presented.hex()[:16]}" if any(matches) else None


def _bearer_token(authorization: bytes) -> bytes:
    """Empty for other schemes; no key is empty."""
    scheme, _, token = authorization.partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else b""


class AuthMiddleware:
    """401 without a valid key; sets `key_id` in the state of a request that has one."""

    def __init__(self, app: ASGIApp, keys: ApiKeys):
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        presented = (
            [value for name, value in scope["headers"] if name == header]
            for header in (b"authorization", b"x-api-key")
        )
        key_id = self._keys.key_id(*presented)
        if key_id is None and scope["path"] not in PUBLIC_PATHS:
            raise RequestError(
                Kind.UNAUTHENTICATED,  # in the same words for every failure
                "A valid API key is required: Authorization: Bearer <key>, or x-api-key: <key>",
                reason="invalid_api_key",
            )
        if key_id is not None:  # a probe has none: to the connection table it stays a stranger
            scope["state"]["key_id"] = key_id
        await self._app(scope, receive, send)
