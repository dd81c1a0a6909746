"""How does every gRPC service start, report health, and stop?"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from rpc.access.guard import DEFAULT_BOUNDS, CallBounds, CallGuard
from rpc.access.secret import MeshSecret, SecretInterceptor
from rpc.access.tls import TlsFiles, server_credentials
from rpc.config import MAX_MESSAGE_BYTES, SERVER_OPTIONS, Address
from rpc.process import ops_http
from rpc.process.open_files import fitting

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 2048
"""The router's 1,000 members and as many watchers."""
STREAMS_TO_REFUSE = 4096
"""Streams of one connection beyond its limit that may wait to be refused with a reason."""
RELOAD_S = 10.0
"""Time between checks of certificate and secret files that no call has read."""
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def check_exposure(listen: Address, *, tls: TlsFiles | None, insecure: bool) -> None:
    """Refuse plaintext beyond loopback unless it was allowed explicitly. Raises ValueError."""
    if tls is None and not insecure and not listen.is_loopback:
        raise ValueError(
            f"--listen {listen}: plaintext gRPC is allowed on loopback only; give --tls-ca,"
            " --tls-cert and --tls-key (see `expertmesh certs`), or --insecure on a trusted network"
        )


class GrpcHost:
    """One aio server with health, and reflection if asked; knows its port after `start`."""

    def __init__(
        self,
        listen: Address,
        *,
        tls: TlsFiles | None,
        secret: MeshSecret | None = None,
        reflection: bool = False,
        max_receive_bytes: int = MAX_MESSAGE_BYTES,
        bounds: CallBounds = DEFAULT_BOUNDS,
        max_connections: int = MAX_CONNECTIONS,
    ):
        """`secret`: what callers must know, except for health checks.

        Raises ValueError when the limit of open files leaves no room for connections.
        """
        self._listen = listen
        self._reflection = reflection
        self._tls = tls
        # A dict, because gRPC uses the first one of an option that is given twice.
        options = {
            **dict(SERVER_OPTIONS),
            "grpc.max_receive_message_length": max_receive_bytes,
            # Far above our own limit, which refuses with a reason: HTTP/2's only resets a stream.
            "grpc.max_concurrent_streams": bounds.per_connection + STREAMS_TO_REFUSE,
            # Handshakes count too; beyond this gRPC closes connections that it has accepted.
            "grpc.max_allowed_incoming_connections": fitting(
                max_connections, "gRPC connections", beside=ops_http.max_connections()
            ),
        }
        interceptors: list[grpc.aio.ServerInterceptor] = [CallGuard(bounds, tls=tls is not None)]
        if secret is not None:
            interceptors.insert(0, SecretInterceptor(secret))
        self.server = grpc.aio.server(interceptors=interceptors, options=tuple(options.items()))
        self.health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self.server)
        self._services: tuple[str, ...] = ()
        self.port = 0

    def bind(self) -> None:
        """Take the port. Raises ValueError when it is in use."""
        self._probe()
        try:
            if self._tls is None:
                self.port = self.server.add_insecure_port(str(self._listen))
            else:
                self.port = self.server.add_secure_port(
                    str(self._listen), server_credentials(self._tls)
                )
        except RuntimeError:
            raise ValueError(f"--listen {self._listen}: cannot bind; is the port in use?") from None

    def _probe(self) -> None:
        """Raises ValueError with the exact reason when the port cannot be bound; gRPC's error does
        not have it."""
        try:
            family, kind, _, _, address = socket.getaddrinfo(
                self._listen.host, self._listen.port, type=socket.SOCK_STREAM
            )[0]
            with socket.socket(family, kind) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
        except OSError as error:
            raise ValueError(f"--listen {self._listen}: {error.strerror}") from None

    async def start(self, services: Sequence[str]) -> None:
        """Serve `services` (full names), not healthy yet; binds if `bind` was not called."""
        if self.port == 0:
            self.bind()
        self._services = tuple(services)
        if self._reflection:
            names = (*self._services, health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self.server)
        await self.set_serving(False)
        await self.server.start()

    @property
    def address(self) -> Address:
        return Address(host=self._listen.host, port=self.port)

    async def set_serving(self, serving: bool) -> None:
        """Set the state in the standard health service, for the server and each service."""
        states = health_pb2.HealthCheckResponse
        status = states.SERVING if serving else states.NOT_SERVING
        for name in ("", *self._services):
            await self.health.set(name, status)

    async def stop(self, grace_s: float) -> None:
        """No new RPCs; running ones get `grace_s`, then are cancelled."""
        await self.set_serving(False)
        await self.server.stop(grace_s)


def exit_at_signal(why: str) -> None:
    """Have SIGTERM and SIGINT end the process at once with status 0, while it serves nothing.

    Before serving, because threads in a long read would delay an orderly end; after it,
    because a second signal must not turn a clean stop into a failure.
    """

    def on_signal(number: int, frame: object) -> None:
        log.info("stopping %s", why)
        os._exit(0)

    for number in _STOP_SIGNALS:
        signal.signal(number, on_signal)


def ignore_hangups() -> None:
    """SIGHUP asks to read files again; it must never end a service, even before it serves."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


async def until_stopped(
    drain: Callable[[], Awaitable[None]],
    abort: Callable[[], None] = lambda: None,
    reload: Callable[[], None] = lambda: None,
) -> None:
    """Sleep until SIGTERM or SIGINT, then `drain`; a second signal calls `abort` at once.

    Until then `reload` is called on SIGHUP and every RELOAD_S.
    """
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, reload)
    first, second = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        if first.is_set() and not second.is_set():
            log.warning("second signal: aborting")
            abort()
            second.set()
        first.set()

    for number in _STOP_SIGNALS:
        loop.add_signal_handler(number, on_signal)
    while not first.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(first.wait(), RELOAD_S)
            break
        reload()
    log.info("stopping")
    draining = asyncio.ensure_future(drain())
    cut_short = asyncio.ensure_future(second.wait())
    await asyncio.wait({draining, cut_short}, return_when=asyncio.FIRST_COMPLETED)
    cut_short.cancel()
    if not draining.done():
        log.warning("drain cut short")
        draining.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await draining
    else:
        draining.result()  # raises what it raised
    for number in _STOP_SIGNALS:
        loop.remove_signal_handler(number)  # restores the default action, like closing the loop
    loop.remove_signal_handler(signal.SIGHUP)
    ignore_hangups()
    exit_at_signal("after serving")
