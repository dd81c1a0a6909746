"""What does a browser ask of its proxy, and how is this asked of the server?"""

import re
from dataclasses import dataclass

from expertmesh.agent.web.urls import WebUrl, parse_authority, parse_url

MAX_HEAD_BYTES = 64 << 10
_REQUEST_LINE = re.compile(r"([A-Z]{1,16}) (\S+) HTTP/1\.[01]")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_FIELD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n\0]*")
_OF_ONE_HOP = frozenset(
    {
        *(b"connection", b"proxy-connection", b"keep-alive", b"proxy-authorization", b"te"),
        *(b"proxy-authenticate", b"upgrade", b"host", b"expect"),
    }
)
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})( [^\r\n\0]*)?")


class BadHeadError(Exception):
    """A head that is not passed on."""


@dataclass(frozen=True)
class Tunnel:
    """A CONNECT: bytes both ways, for TLS and WebSockets."""

    host: str
    port: int


@dataclass(frozen=True)
class Forward:
    """A request for an http URL."""

    url: WebUrl
    head: bytes
    """For the server."""
    body_bytes: int


def read_request(head: bytes) -> Tunnel | Forward:
    """Of a request's head with its final empty line. Raises BadHeadError and BadUrlError."""
    line, fields = _split(head)
    if not all(_FIELD.fullmatch(field) for field in fields):
        raise BadHeadError("a header field is not well formed")
    request = _REQUEST_LINE.fullmatch(line.decode("latin-1"))
    if request is None:
        raise BadHeadError("not a request of HTTP/1.1")
    method, target = request[1], request[2]
    if method == "CONNECT":
        host, port = parse_authority(target, None)
        return Tunnel(host, port)
    if method not in _METHODS:
        raise BadHeadError(f"the method {method} is not passed on")
    if not target.startswith("http://"):
        raise BadHeadError("only whole http URLs are passed on")
    url = parse_url(target)
    kept = [field for field in fields if _name(field) not in _OF_ONE_HOP]
    first = f"{method} {url.path} HTTP/1.1\r\nHost: {url.authority}\r\nConnection: close"
    return Forward(url, b"\r\n".join([first.encode("ascii"), *kept, b"", b""]), _body_bytes(fields))


def closing_answer(head: bytes) -> tuple[int, bytes]:
    """(status, a server's head that ends the connection after its body). Raises BadHeadError."""
    line, fields = _split(head)
    status = _STATUS_LINE.fullmatch(line)
    if status is None:
        raise BadHeadError("the server does not answer in HTTP/1.1")
    kept = [
        field for field in fields if _FIELD.fullmatch(field) and _name(field) not in _OF_ONE_HOP
    ]
    return int(status[1]), b"\r\n".join([line, *kept, b"Connection: close", b"", b""])


def _split(head: bytes) -> tuple[bytes, list[bytes]]:
    """The first line and the fields, as they are."""
    line, *fields = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    return line, fields


def _name(field: bytes) -> bytes:
    return field.partition(b":")[0].lower()


def _body_bytes(fields: list[bytes]) -> int:
    """Of a request. One whose end is not told in advance is refused."""
    if any(_name(field) == b"transfer-encoding" for field in fields):
        raise BadHeadError("a request's body must have a Content-Length")
    lengths = [
        field.partition(b":")[2].strip() for field in fields if _name(field) == b"content-length"
    ]
    if not lengths:
        return 0
    if len(lengths) > 1 or not re.fullmatch(rb"[0-9]{1,12}", lengths[0]):
        raise BadHeadError("Content-Length must be one number")
    return int(lengths[0])
