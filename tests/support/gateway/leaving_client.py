"""A client that leaves in the middle of its answer."""

import json
import socket
from typing import Any

from tests.support.gateway.harness import Harness
from tests.support.gateway.model import NAME


def send(gateway: Harness, **fields: Any) -> socket.socket:
    body = json.dumps(
        {"model": NAME, "messages": [{"role": "user", "content": "hello"}], **fields}
    ).encode()
    connection = gateway.socket()
    connection.sendall(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    )
    return connection
