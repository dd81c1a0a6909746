"""Where do Prometheus and probes connect? To a small HTTP server on a thread of its own.

It answers while the service's event loop is busy: /metrics, /livez, /readyz and
the JSON pages that a service adds. At the limit of connections the oldest is closed, so that
silent ones never keep a probe out.
"""

import contextlib
import errno
import json
import logging
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Collection, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from rpc.access.host_names import is_own_name, name_of
from rpc.config import Address
from rpc.process.open_files import open_file_limit

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 64
"""Each has a thread while it is open; fewer where the limit of open files is low."""
LEAST_LIFE_S = 0.05
"""A connection has at least this long to send its request before it may be closed."""

Readiness = Callable[[], tuple[bool, str]]
"""() -> (ready, reason when not)."""


def max_connections() -> int:
    """Most connections at once of one server in this process."""
    return max(4, min(MAX_CONNECTIONS, open_file_limit() // 8))


class OpsServer:
    """The HTTP server; `start` binds and starts its thread, `stop` ends it."""

    def __init__(
        self,
        listen: Address,
        registry: CollectorRegistry,
        readiness: Readiness,
        pages: Mapping[str, Callable[[], Any]] | None = None,
        *,
        hosts: Collection[str] = (),
    ):
        """`pages`: path -> function that returns a JSON value; `hosts`: more names allowed in the
        Host header."""
        self._listen = listen
        self._registry = registry
        self._readiness = readiness
        self._pages = dict(pages or {})
        self._hosts = (listen.host, *hosts)
        self._server: ThreadingHTTPServer | None = None

    @property
    def port(self) -> int:
        assert self._server is not None
        return self._server.server_address[1]

    def start(self) -> None:
        """Raises ValueError naming --ops-listen when the address cannot be bound."""
        handler = type("Handler", (_OpsHandler,), {"ops": self})
        try:
            self._server = _Server((self._listen.host, self._listen.port), handler)
        except OSError as error:
            raise ValueError(
                f"--ops-listen {self._listen}: {error.strerror}; each service of a host needs "
                "a port of its own (port 0 takes a free one)"
            ) from None
        threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.2},
            name="ops-http",
            daemon=True,
        ).start()

    def stop(self) -> None:
        if self._server is None:
            return
        self._server.shutdown()
        self._server.server_close()

    def allows(self, host: str) -> bool:
        """Whether a request with this Host header may be answered."""
        name = name_of(host)
        return name is not None and is_own_name(name, allowed=self._hosts)

    def respond(self, path: str) -> tuple[int, str, bytes]:
        """Status, content type and body for a GET of `path`."""
        if path == "/metrics":
            return 200, CONTENT_TYPE_LATEST, generate_latest(self._registry)
        if path == "/livez":
            return 200, "text/plain", b"ok\n"
        if path == "/readyz":
            ready, reason = self._readiness()
            return (
                (200, "text/plain", b"ready\n")
                if ready
                else (503, "text/plain", f"{reason}\n".encode())
            )
        if path in self._pages:
            return 200, "application/json", json.dumps(self._pages[path]()).encode()
        return 404, "text/plain", b"not found\n"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *arguments: Any):
        self._open: dict[socket.socket, float] = {}
        """Since when, oldest first."""
        self._lock = threading.Lock()
        self._max_connections = max_connections()
        super().__init__(*arguments)

    def server_bind(self) -> None:
        # HTTPServer's own method looks up the host's full name, which may take seconds.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            connection, address = super().get_request()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._cut_oldest()  # frees a descriptor for the next one
                time.sleep(LEAST_LIFE_S)
            raise
        if len(self._open) >= self._max_connections:
            self._cut_oldest()
        with self._lock:
            self._open[connection] = time.monotonic()
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def _cut_oldest(self) -> None:
        with self._lock:
            connection, since_s = next(iter(self._open.items()), (None, 0.0))
        if connection is None:
            return
        time.sleep(max(0.0, since_s + LEAST_LIFE_S - time.monotonic()))
        with self._lock:
            if self._open.pop(connection, None) is None:
                return  # it has ended in the meantime
            with contextlib.suppress(OSError):  # the client closed it first
                connection.shutdown(socket.SHUT_RDWR)  # its thread reads the end and closes it

    def handle_error(self, request: Any, client_address: Any) -> None:
        # Mostly a prober that hung up; socketserver would print a traceback.
        log.debug("ops request of %s failed", client_address, exc_info=True)


class _OpsHandler(BaseHTTPRequestHandler):
    ops: OpsServer
    timeout = 10  # a client that sends nothing is dropped
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        status, content_type, body = self._answer()
        if "content-length" in self.headers or "transfer-encoding" in self.headers:
            self.close_connection = True  # a body is not read, and must not be taken for a request
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def _answer(self) -> tuple[int, str, bytes]:
        hosts = self.headers.get_all("host", [])
        if len(hosts) > 1 or (not hosts and self.request_version not in ("HTTP/0.9", "HTTP/1.0")):
            self.close_connection = True
            return 400, "text/plain", b"one Host header is needed\n"
        if hosts and not self.ops.allows(hosts[0]):
            return 403, "text/plain", b"this Host is not allowed: --ops-host adds one\n"
        try:
            return self.ops.respond(self.path.partition("?")[0])
        except Exception:  # a bug of a page must not end the thread; logged with its traceback
            log.exception("page %.200r failed", self.path)
            return 500, "text/plain", b"internal error\n"

    def log_message(self, format: str, *args: Any) -> None:
        log.debug("%.500r", format % args)
