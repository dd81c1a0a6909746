"""What did a server compress, when it may not grow beyond a limit?"""

import zlib
from collections.abc import AsyncIterator
from typing import Protocol

ACCEPTED = "gzip, deflate"
"""Of the Accept-Encoding header."""
_PIECE_BYTES = 64 << 10


class TooLargeError(Exception):
    """More bytes than allowed."""


class BadEncodingError(Exception):
    """A body that is not what its Content-Encoding says."""


class _Decoder(Protocol):
    def feed(self, data: bytes, limit: int) -> bytes: ...


class _Plain:
    def feed(self, data: bytes, limit: int) -> bytes:
        return data


class _Zlib:
    """gzip and deflate; the latter in its two forms, with zlib's header and without."""

    def __init__(self, gzip: bool):
        self._inflate = zlib.decompressobj(16 + zlib.MAX_WBITS) if gzip else None

    def feed(self, data: bytes, limit: int) -> bytes:
        """At most `limit` + 1 bytes of what `data` holds, so that the caller sees the excess."""
        if self._inflate is None:
            with_header = data[:1] and data[0] & 0x0F == 8
            self._inflate = zlib.decompressobj(zlib.MAX_WBITS if with_header else -zlib.MAX_WBITS)
        try:
            return self._inflate.decompress(data, limit + 1)
        except zlib.error as error:
            raise BadEncodingError(f"the body is not compressed as it says: {error}") from None


def _decoder(encoding: str) -> _Decoder:
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return _Plain()
    if name in ("gzip", "x-gzip"):
        return _Zlib(gzip=True)
    if name == "deflate":
        return _Zlib(gzip=False)
    raise BadEncodingError(f"the body is compressed as {name[:40]!r}, which nobody asked for")


async def read_body(pieces: AsyncIterator[bytes], encoding: str, max_bytes: int) -> bytes:
    """The decoded body. Both it and what comes over the wire have at most `max_bytes`.

    Raises TooLargeError and BadEncodingError.
    """
    decoder = _decoder(encoding)
    body = bytearray()
    received = 0
    async for piece in pieces:
        received += len(piece)
        for start in range(0, len(piece), _PIECE_BYTES):
            body += decoder.feed(piece[start : start + _PIECE_BYTES], max_bytes - len(body))
            if max(received, len(body)) > max_bytes:
                raise TooLargeError(f"the page has more than {max_bytes >> 20} MB")
    return bytes(body)
