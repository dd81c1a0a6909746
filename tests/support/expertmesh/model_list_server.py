"""A server that answers one thing: which models it has."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class ModelList:
    """What it answers; may be changed while it runs."""

    url: str = ""
    models: Any = field(default_factory=lambda: [{"id": "m2", "max_model_len": 196_608}])
    key: str | None = None
    status: int = 200
    shown: list[str | None] = field(default_factory=list)
    """The Authorization of each request."""


@contextmanager
def model_list_server() -> Iterator[ModelList]:
    told = ModelList()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            shown = self.headers.get("Authorization")
            told.shown.append(shown)
            is_known = told.key is None or shown == f"Bearer {told.key}"
            body = json.dumps({"data": told.models}).encode()
            self.send_response(told.status if is_known else 401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    told.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield told
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()
