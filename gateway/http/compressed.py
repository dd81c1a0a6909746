"""How does a compressed body become a plain one, which is never larger than a plain one may be?

It is expanded as it arrives, in pieces: memory and time go by what came out, not by what the
client says of it, and other requests have their turn between two pieces.
"""

import asyncio
import sys
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

from starlette.types import Message, Receive

from gateway.errors import Kind, RequestError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PIECE_BYTES = 256 * 1024
_GZIP = 16
"""Added to zlib's window size: gzip's header and checksum."""
_ERRORS = (zlib.error, zstd.ZstdError)


def _gunzip(most_bytes: int) -> Any:
    return zlib.decompressobj(_GZIP + zlib.MAX_WBITS)


def _unzstd(most_bytes: int) -> Any:
    """A window is memory: none is larger than the whole body may be."""
    log2 = max(10, (most_bytes - 1).bit_length())
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: log2})


DECODERS: Mapping[bytes, Callable[[int], Any]] = {
    b"gzip": _gunzip,
    b"x-gzip": _gunzip,
    b"zstd": _unzstd,
}
"""Content-Encoding -> what makes its decompressor, given the most bytes of a body."""


def check_encoding(encoding: bytes) -> None:
    """Raises RequestError unless bodies may come in this Content-Encoding."""
    if encoding not in (b"", b"identity", *DECODERS):
        raise RequestError(
            Kind.UNSUPPORTED_MEDIA,
            "Content-Encoding is not supported: send the body uncompressed, or as "
            + " or ".join(name.decode() for name in DECODERS if not name.startswith(b"x-")),
            reason="unsupported_content_encoding",
        )


class Expander:
    """One body's decompressor: `feed` what arrives, then `end`. One frame makes a body."""

    def __init__(self, encoding: bytes, most_bytes: int):
        """`encoding` is one of DECODERS."""
        self._name = encoding.decode()
        self._decoder = DECODERS[encoding](most_bytes)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What it expands to, in pieces. Raises RequestError."""
        decoder = self._decoder
        if decoder.eof:
            self._check_end(data)
            return
        try:
            piece = decoder.decompress(data, PIECE_BYTES)
            while piece:
                yield piece
                if decoder.eof:
                    break
                piece = decoder.decompress(getattr(decoder, "unconsumed_tail", b""), PIECE_BYTES)
        except _ERRORS:
            raise self._refusal("is not valid") from None
        self._check_end(decoder.unused_data)

    def end(self) -> None:
        """Raises RequestError when the body stopped before its end."""
        if not self._decoder.eof:
            raise self._refusal("ends too early")

    def _check_end(self, rest: bytes) -> None:
        if rest:
            raise self._refusal("is followed by other data")

    def _refusal(self, what: str) -> RequestError:
        return RequestError(
            Kind.INVALID_REQUEST,
            f"The request body {what} as {self._name}, which Content-Encoding says it is",
            reason="invalid_encoding",
        )


def expanding(receive: Receive, expander: Expander) -> Receive:
    """`receive` for the body as it was before its compression; it raises RequestError."""
    messages = _expanded(receive, expander)

    async def receive_expanded() -> Message:
        message = await anext(messages, None)
        return await receive() if message is None else message

    return receive_expanded


async def _expanded(receive: Receive, expander: Expander) -> AsyncIterator[Message]:
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            yield message
            return
        more = message.get("more_body", False)
        for piece in expander.feed(message.get("body", b"")):
            yield {"type": "http.request", "body": piece, "more_body": True}
            await asyncio.sleep(0)
    expander.end()
    yield {"type": "http.request", "body": b"", "more_body": False}
