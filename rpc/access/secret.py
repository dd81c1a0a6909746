"""Does a caller know the secret of this mesh, where there are no certificates?

Each call carries a proof: the time, and a keyed hash of the time and the method. A process that
takes over the port of a stopped service therefore does not learn the secret from its callers, and
a proof that it receives is valid for one method and one minute. A file may hold several secrets,
one per line: the first is used and all are accepted, so that processes can change them in turn.
"""

import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc

from rpc.watched import Watched

HEADER = "expertmesh-proof"
MIN_CHARS = 16
MAX_FILE_BYTES = 64 * 1024
VALID_S = 60
"""How much the clocks of two processes may differ."""
CALL_KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
OPEN_PREFIX = "/grpc.health.v1.Health/"
"""Probes carry no secret; they learn only whether a service is serving."""


def write_secret(path: Path) -> None:
    """A new secret in a new file that only its owner can read. Raises OSError."""
    path.unlink(missing_ok=True)  # an old file would keep its own mode
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(secrets.token_urlsafe(32) + "\n")


class MeshSecret:
    """The secrets in a file, read again when it changes."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time):
        """Raises ValueError naming --secret-file."""
        self._clock = clock
        self._keys = Watched([path], lambda: _read(path), what="--secret-file")

    def proof(self, method: str) -> str:
        """The proof for a call of this method (/package.Service/Method) now."""
        at_s = int(self._clock())
        return f"{at_s}.{_digest(self._keys.get()[0], at_s, method)}"

    def accepts(self, method: str, proof: str) -> bool:
        """Whether a proof was made for this method, recently, with one of the secrets."""
        at, _, digest = proof.partition(".")
        if not (at.isascii() and at.isdecimal() and len(at) <= 12):
            return False
        at_s = int(at)
        # Compare with all, so that the time taken does not show which one was close.
        shown = digest.encode("ascii", "replace")
        fits = [
            hmac.compare_digest(_digest(key, at_s, method).encode(), shown)
            for key in self._keys.get()
        ]
        return any(fits) and abs(self._clock() - at_s) <= VALID_S

    def reload(self) -> None:
        self._keys.reload()


def _digest(key: bytes, at_s: int, method: str) -> str:
    return hmac.new(key, f"{at_s} {method}".encode(), hashlib.sha256).hexdigest()


def _read(path: Path) -> tuple[bytes, ...]:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ValueError(f"--secret-file: cannot read {path}: {error.strerror}") from None
    keys = tuple(line.strip() for line in content.splitlines() if line.strip())
    if not keys or len(content) > MAX_FILE_BYTES or any(len(key) < MIN_CHARS for key in keys):
        raise ValueError(
            f"--secret-file: {path} must hold secrets of at least {MIN_CHARS} characters,"
            " one per line"
        )
    return keys


class SecretInterceptor(grpc.aio.ServerInterceptor):
    """Refuses each call without a valid proof, before it reaches its servicer."""

    def __init__(self, secret: MeshSecret):
        self._secret = secret

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        method = handler_call_details.method
        handler = await continuation(handler_call_details)
        if handler is None or method.startswith(OPEN_PREFIX):
            return handler
        proofs = [
            value for name, value in handler_call_details.invocation_metadata if name == HEADER
        ]
        if len(proofs) == 1 and self._secret.accepts(method, proofs[0]):
            return handler
        return _refusing(handler)


def _refusing(handler: Any) -> Any:
    """A handler of the same shape that only refuses."""

    async def refuse(request: Any, context: Any) -> None:
        await context.abort(
            grpc.StatusCode.UNAUTHENTICATED,
            "callers must show the secret of this mesh: --secret-file (of `expertmesh up`: the "
            "file `secret` of its run folder), with clocks that agree to a minute",
        )

    shapes = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    return shapes[handler.request_streaming, handler.response_streaming](refuse)


class ProvingChannel:
    """A channel (asyncio or blocking) that adds the proof to every call."""

    def __init__(self, channel: Any, secret: MeshSecret):
        self._channel = channel
        self._secret = secret

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._channel, name)
        return self._proving(found) if name in CALL_KINDS else found

    def __enter__(self) -> "ProvingChannel":
        self._channel.__enter__()
        return self

    def __exit__(self, *raised: Any) -> Any:
        return self._channel.__exit__(*raised)

    async def __aenter__(self) -> "ProvingChannel":
        await self._channel.__aenter__()
        return self

    async def __aexit__(self, *raised: Any) -> Any:
        return await self._channel.__aexit__(*raised)

    def _proving(self, make: Callable[..., Any]) -> Callable[..., Any]:
        """A channel's `unary_unary` or the like, for calls with a proof."""

        def make_proving(method: str, *args: Any, **options: Any) -> Callable[..., Any]:
            begin = make(method, *args, **options)

            def call(*args: Any, metadata: Any = None, **options: Any) -> Any:
                shown = (*(metadata or ()), (HEADER, self._secret.proof(method)))
                return begin(*args, metadata=shown, **options)

            return call

        return make_proving
