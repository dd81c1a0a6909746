"""How is the application served over HTTP? A socket of our own, uvicorn on our loop."""

import contextlib
import dataclasses
import functools
import logging
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from gateway.http.connections import ConnectionTable
from gateway.http.dialect import ErrorShape
from gateway.http.protocol import GatewayProtocol
from gateway.limits import Limits
from rpc.config import Address
from rpc.process.open_files import fitting

KEEP_ALIVE_S = 30
SEND_BUFFER_BYTES = 256 * 1024
ACCEPT_BATCH = 32
"""Connections accepted at a time: a burst must not push out every connection on a place for probes
before its first byte was read."""
LISTEN_QUEUE = 1024


def bind(listen: Address) -> socket.socket:
    """A bound socket; port 0 takes a free one. Raises ValueError for a taken port."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ValueError(f"--listen {listen}: {error.strerror}") from None
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Inherited by connections: a client that does not read holds this much, not megabytes.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    try:
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise ValueError(
            f"--listen {listen}: cannot bind ({error.strerror}); is the port taken?"
        ) from None
    return sock


def fit_to_open_files(limits: Limits) -> Limits:
    """The limits with caps that the process's limit of open files allows. Raises ValueError."""
    cap = fitting(
        limits.max_connections,
        "--max-connections",
        beside=limits.probe_connections + 2 * ACCEPT_BATCH,
    )
    each = max(1, limits.max_connections_per_address * cap // limits.max_connections)
    return dataclasses.replace(limits, max_connections=cap, max_connections_per_address=each)


class HttpServer(uvicorn.Server):
    """uvicorn without its signal handlers: the service stops like every other one."""

    def __init__(
        self,
        app: ASGIApp,
        table: ConnectionTable,
        errors: ErrorShape,
        *,
        shutdown_timeout_s: float,
    ):
        """`errors`: how requests are refused that never reach `app`."""
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        super().__init__(
            uvicorn.Config(
                app,
                http=functools.partial(GatewayProtocol, table, errors),  # type: ignore[arg-type]
                ws="none",  # so that the middlewares see nothing but HTTP
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                backlog=ACCEPT_BATCH,  # asyncio accepts as many at a time
                timeout_graceful_shutdown=max(1, round(shutdown_timeout_s)),
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for sock in sockets or ():
            sock.listen(LISTEN_QUEUE)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
