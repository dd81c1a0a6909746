"""Where do Prometheus and probes look? A small HTTP server in a thread of its own.

It answers while the service's event loop is busy: /metrics, /livez, /readyz and
whatever JSON pages a service adds.
"""

import json
import logging
import socketserver
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from rpc.config import Address

log = logging.getLogger(__name__)

Readiness = Callable[[], tuple[bool, str]]
"""() -> (ready, reason when not)."""


class OpsServer:
    """HTTP on its own thread; `start` binds, `stop` ends it."""

    def __init__(
        self,
        listen: Address,
        registry: CollectorRegistry,
        readiness: Readiness,
        pages: Mapping[str, Callable[[], Any]] | None = None,
    ):
        """`pages`: path -> function returning something JSON can hold."""
        self._listen = listen
        self._registry = registry
        self._readiness = readiness
        self._pages = dict(pages or {})
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        assert self._server is not None
        return self._server.server_address[1]

    def start(self) -> None:
        """Raises ValueError naming --ops-listen when the address cannot be had."""
        handler = type("Handler", (_OpsHandler,), {"ops": self})
        try:
            self._server = _Server((self._listen.host, self._listen.port), handler)
        except OSError as error:
            raise ValueError(
                f"--ops-listen {self._listen}: {error.strerror}; each service of a host needs "
                "a port of its own (port 0 takes a free one)"
            ) from None
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.2},
            name="ops-http",
            daemon=True,
        )
        self._thread.start()

    def stop(self) -> None:
        if self._server is None:
            return
        self._server.shutdown()
        self._server.server_close()

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

    def server_bind(self) -> None:
        # HTTPServer's own asks the name service who we are, which may take seconds.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        # Mostly a prober that hung up; socketserver would print a traceback.
        log.debug("ops request of %s failed", client_address, exc_info=True)


class _OpsHandler(BaseHTTPRequestHandler):
    ops: OpsServer
    timeout = 10  # a client that sends nothing is dropped
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        try:
            status, content_type, body = self.ops.respond(self.path.partition("?")[0])
        except Exception:  # a page's bug must not end the thread; it is logged with its traceback
            log.exception("page %s failed", self.path)
            status, content_type, body = 500, "text/plain", b"internal error\n"
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        log.debug(format, *args)
