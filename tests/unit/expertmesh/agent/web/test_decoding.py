"""Bodies grow no further than allowed, whatever they are compressed as."""

import gzip
import zlib
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expertmesh.agent.web.decoding import BadEncodingError, TooLargeError, read_body


async def in_pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def raw_deflate(data: bytes) -> bytes:
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflate.compress(data) + deflate.flush()


CODERS = {
    "": bytes,
    "identity": bytes,
    "gzip": gzip.compress,
    "X-GZIP": gzip.compress,
    "deflate": zlib.compress,
    " deflate ": raw_deflate,
}


@pytest.mark.parametrize("encoding", CODERS)
async def test_a_body_comes_back_whole(encoding: str) -> None:
    coder = CODERS[encoding]
    for data, size in [(b"", 1), (b"a" * 1000, 7), (bytes(range(256)) * 400, 4096)]:
        assert await read_body(in_pieces(coder(data), size), encoding, len(data) + 100) == data


@pytest.mark.parametrize("encoding", CODERS)
async def test_one_byte_too_many_is_refused(encoding: str) -> None:
    with pytest.raises(TooLargeError):
        await read_body(in_pieces(CODERS[encoding](b"a" * 1001), 64), encoding, 1000)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_bomb_is_not_unpacked(encoding: str) -> None:
    seen = 0

    async def counted(data: bytes) -> AsyncIterator[bytes]:
        nonlocal seen
        async for piece in in_pieces(data, 1024):
            seen += len(piece)
            yield piece

    bomb = CODERS[encoding](bytes(50 << 20))
    assert len(bomb) < 100_000
    with pytest.raises(TooLargeError, match="more than 5 MB"):
        await read_body(counted(bomb), encoding, 5 << 20)
    assert seen < len(bomb) / 4


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "x"])
async def test_an_encoding_nobody_asked_for_is_refused(encoding: str) -> None:
    with pytest.raises(BadEncodingError, match="nobody asked for"):
        await read_body(in_pieces(b"a", 1), encoding, 10)


@given(st.binary(min_size=1, max_size=200), st.sampled_from(["gzip", "deflate"]))
async def test_garbage_is_an_error_or_bytes_but_nothing_else(data: bytes, encoding: str) -> None:
    try:
        body = await read_body(in_pieces(data, 16), encoding, 1000)
    except (BadEncodingError, TooLargeError):
        return
    assert len(body) <= 1000
