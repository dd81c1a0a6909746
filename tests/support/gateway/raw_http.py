"""HTTP by hand, for what no well-behaved client sends."""

import contextlib
import json
import socket
from typing import Any

from tests.support.gateway.harness import Harness
from tests.support.gateway.model import NAME

CHAT = json.dumps({"model": NAME, "messages": [{"role": "user", "content": "hello"}]}).encode()
POST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
)


def read_all(connection: socket.socket) -> bytes:
    received = b""
    try:
        while part := connection.recv(65536):
            received += part
    except ConnectionResetError:
        pass
    return received


def exchange(gateway: Harness, data: bytes) -> bytes:
    """Send, then read until the server closes."""
    with gateway.socket() as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(data)
        return read_all(connection)


def status_of(reply: bytes) -> int:
    return int(reply.split(b" ", 2)[1]) if reply.startswith(b"HTTP/1.1 ") else 0


def error_of(reply: bytes) -> dict[str, Any]:
    error: dict[str, Any] = json.loads(reply.partition(b"\r\n\r\n")[2])["error"]
    return error
