"""Which bytes are an HTTP request? h11 decides, with stricter rules and bounds than its own.

h11 refuses conflicting lengths and control characters. It would accept lines that end without CR,
any version number, and a header of any size that arrives in one piece.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import h11
from h11._receivebuffer import ReceiveBuffer

from gateway.limits import Limits

VERSIONS = (b"1.0", b"1.1")
SINGLE_HEADERS = frozenset(
    (
        b"host",
        b"origin",
        b"content-type",
        b"content-encoding",
        b"content-length",
        b"transfer-encoding",
        b"expect",
        b"access-control-request-method",
        b"access-control-request-headers",
    )
)
"""Headers that decide about a request: of two, a proxy in front of us may have read the other.

Repeated Authorization is refused where keys are compared, with the same 401 as a wrong key."""


class _HeaderLines(ReceiveBuffer):
    """Where h11 takes headers and trailers from."""

    def __init__(self, most_bytes: int):
        super().__init__()
        self._most_bytes = most_bytes

    def maybe_extract_lines(self) -> list[bytearray] | None:
        size_before = len(self)
        start = bytes(self._data[: self._most_bytes])
        lines = super().maybe_extract_lines()
        if lines is None:
            return None
        size_bytes = size_before - len(self)
        if size_bytes > self._most_bytes:
            raise h11.RemoteProtocolError("header too large", error_status_hint=431)
        head = start[:size_bytes]
        if head.count(b"\n") != head.count(b"\r\n"):
            raise h11.RemoteProtocolError("a line ends without CR")
        names = Counter(bytes(line.partition(b":")[0]).lower() for line in lines[1:])
        for name in SINGLE_HEADERS & names.keys():
            if names[name] > 1:
                raise h11.RemoteProtocolError(f"more than one {name.decode()} header")
        return lines


class CheckedConnection(h11.Connection):
    """One connection's parser. `admit` sees each request's header and may raise."""

    def __init__(self, limits: Limits, admit: Callable[[h11.Request], None] = lambda request: None):
        super().__init__(h11.SERVER, max_incomplete_event_size=limits.header_bytes)
        self._receive_buffer = _HeaderLines(limits.header_bytes)
        self._limits = limits
        self._admit = admit
        self._chunks = 0
        self.body_bytes = 0
        """Of the body that is being received."""

    def next_event(self) -> Any:
        """Raises h11.RemoteProtocolError, its `error_status_hint` the status of the answer."""
        event = super().next_event()
        if isinstance(event, h11.Data):
            self._count_chunk(len(event.data))
        elif isinstance(event, h11.Request):
            self._chunks = self.body_bytes = 0
            self._check_header(event)
            self._admit(event)
        return event

    def _check_header(self, request: h11.Request) -> None:
        if request.http_version not in VERSIONS:
            raise h11.RemoteProtocolError("unknown HTTP version", error_status_hint=505)
        names = {name for name, _ in request.headers}
        if b"content-length" in names and b"transfer-encoding" in names:
            raise h11.RemoteProtocolError("both Content-Length and Transfer-Encoding")

    def _count_chunk(self, size: int) -> None:
        self._chunks += 1
        self.body_bytes += size
        tiny = self.body_bytes < self._chunks * self._limits.tiny_chunk_bytes
        if tiny and self._chunks > self._limits.tiny_chunks:
            raise h11.RemoteProtocolError("body in tiny chunks", error_status_hint=408)
