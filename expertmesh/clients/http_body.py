"""How is an HTTP/1.1 answer parsed as its bytes arrive, with one request per connection?"""

from collections.abc import Iterator

MAX_HEAD_BYTES = 64 * 1024


class BadAnswer(Exception):
    """The answer is not HTTP/1.1, or ended too early."""


class AnswerReader:
    """Takes the bytes as they arrive; returns the body's, without transfer coding."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.ended = False
        self._buffer = b""
        self._chunked = False
        self._left: int | None = None
        """Bytes left of the body or chunk; None: the body ends with the connection."""

    def feed(self, data: bytes) -> bytes:
        """Body bytes in `data`. Raises BadAnswer."""
        self._buffer += data
        if self.status is None and not self._read_head():
            return b""
        return b"".join(self._body())

    def close(self) -> None:
        """The connection has closed. Raises BadAnswer if the answer was not complete."""
        if self.status is not None and self._left is None and not self._chunked:
            self.ended = True
        if not self.ended:
            raise BadAnswer("the connection closed before the answer was complete")

    def _read_head(self) -> bool:
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            if len(head) > MAX_HEAD_BYTES:
                raise BadAnswer(f"headers longer than {MAX_HEAD_BYTES} bytes")
            return False
        first, *lines = head.decode("latin-1").split("\r\n")
        parts = first.split(" ", 2)
        if len(parts) < 2 or not parts[0].startswith("HTTP/1.") or not parts[1].isdecimal():
            raise BadAnswer(f"not an HTTP answer: {first[:80]!r}")
        self.status, self._buffer = int(parts[1]), rest
        for line in lines:
            name, _, value = line.partition(":")
            self.headers[name.strip().lower()] = value.strip()
        self._chunked = "chunked" in self.headers.get("transfer-encoding", "").lower()
        length = self.headers.get("content-length", "")
        self._left = 0 if self._chunked else int(length) if length.isdecimal() else None
        return True

    def _body(self) -> Iterator[bytes]:
        if not self._chunked:
            part, self._buffer = self._buffer[: self._left], b""
            if self._left is not None:
                self._left -= len(part)
                self.ended = self._left == 0
            yield part
            return
        while not self.ended:
            if self._left:
                part, self._buffer = self._buffer[: self._left], self._buffer[self._left :]
                self._left -= len(part)
                yield part
            if self._left or not self._next_chunk():
                return

    def _next_chunk(self) -> bool:
        """Read a chunk's size; the line end of the chunk before it is still in the buffer."""
        line, end, rest = self._buffer.removeprefix(b"\r\n").partition(b"\r\n")
        if not end:
            return False
        try:
            self._left = int(line.partition(b";")[0], 16)
        except ValueError:
            raise BadAnswer(f"not a chunk size: {line[:40]!r}") from None
        self._buffer = rest
        self.ended = self._left == 0
        return not self.ended


class EventSplitter:
    """Splits a byte stream into the data of its server-sent events, without comments."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        *blocks, self._rest = (self._rest + data).replace(b"\r\n", b"\n").split(b"\n\n")
        found = (_data_of(block) for block in blocks)
        return [one for one in found if one]


def _data_of(block: bytes) -> bytes:
    lines = [line[5:].removeprefix(b" ") for line in block.split(b"\n") if line[:5] == b"data:"]
    return b"\n".join(lines)
