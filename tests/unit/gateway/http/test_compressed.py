"""Which bytes does a compressed body expand to, and which bodies are refused?"""

import contextlib
import gzip
import zlib
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import RequestError
from gateway.http.compressed import DECODERS, PIECE_BYTES, Expander, check_encoding, zstd
from tests.support.gateway.compressed import COMPRESSORS

MOST_BYTES = 16 * 1024 * 1024
ENCODINGS = sorted(COMPRESSORS)


def expanded(encoding: bytes, parts: Sequence[bytes]) -> bytes:
    expander = Expander(encoding, MOST_BYTES)
    pieces = [piece for part in parts for piece in expander.feed(part)]
    expander.end()
    assert all(len(piece) <= PIECE_BYTES for piece in pieces)
    return b"".join(pieces)


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    ends = sorted(place % (len(data) + 1) for place in places)
    return [data[a:b] for a, b in zip([0, *ends], [*ends, len(data)], strict=True)]


TEXTS = st.one_of(
    st.binary(max_size=2000),
    st.builds(lambda part, count: part * count, st.binary(max_size=50), st.integers(0, 20_000)),
)
PLACES = st.lists(st.integers(min_value=0, max_value=10**6), max_size=5)


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(text=TEXTS, places=PLACES)
def test_a_body_expands_to_what_was_compressed_however_it_arrives(
    encoding: bytes, text: bytes, places: list[int]
) -> None:
    assert expanded(encoding, cut(COMPRESSORS[encoding](text), places)) == text


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(text=TEXTS, places=PLACES, place=st.integers(min_value=0, max_value=10**6))
def test_a_body_that_stops_before_its_end_is_refused(
    encoding: bytes, text: bytes, places: list[int], place: int
) -> None:
    whole = COMPRESSORS[encoding](text)
    with pytest.raises(RequestError, match="ends too early"):
        expanded(encoding, cut(whole[: place % len(whole)], places))


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(text=TEXTS, places=PLACES, rest=st.binary(min_size=1, max_size=20))
def test_data_after_the_end_is_refused(
    encoding: bytes, text: bytes, places: list[int], rest: bytes
) -> None:
    with pytest.raises(RequestError, match="followed by other data"):
        expanded(encoding, cut(COMPRESSORS[encoding](text) + rest, places))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_second_frame_is_other_data(encoding: bytes) -> None:
    frame = COMPRESSORS[encoding](b"{}")
    with pytest.raises(RequestError, match="followed by other data"):
        expanded(encoding, [frame, frame])


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(
    text=st.binary(max_size=300),
    flips=st.lists(st.integers(0, 10**6), max_size=3),
    noise=st.binary(max_size=300),
)
def test_other_bytes_are_refused_by_a_request_error_and_nothing_else(
    encoding: bytes, text: bytes, flips: list[int], noise: bytes
) -> None:
    broken = bytearray(COMPRESSORS[encoding](text))
    for place in flips:
        broken[place % len(broken)] ^= 1 + place % 255
    for body in (noise, bytes(broken)):
        with contextlib.suppress(RequestError):
            expanded(encoding, [body])


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_bomb_gives_one_piece_at_a_time(encoding: bytes) -> None:
    bomb = COMPRESSORS[encoding](b"\0" * 20_000_000)
    assert len(bomb) < 100_000
    pieces = Expander(encoding, MOST_BYTES).feed(bomb)
    assert [len(next(pieces)) for _ in range(3)] == [PIECE_BYTES] * 3


def test_a_zstd_window_is_no_larger_than_a_body_may_be() -> None:
    options = {zstd.CompressionParameter.window_log: 27}
    # As streamed: a frame that announces its size has a window of that size at most.
    compressor = zstd.ZstdCompressor(options=options)
    body = compressor.compress(b"a" * 1000) + compressor.flush()
    with pytest.raises(RequestError, match="is not valid"):
        expanded(b"zstd", [body])


def test_raw_deflate_is_not_gzip() -> None:
    with pytest.raises(RequestError, match="is not valid"):
        expanded(b"gzip", [zlib.compress(b"{}")])


@pytest.mark.parametrize("encoding", [b"br", b"deflate", b"gzip, gzip", b"GZIP", b"zstd\0"])
def test_other_encodings_are_refused_and_the_known_ones_told(encoding: bytes) -> None:
    with pytest.raises(RequestError, match="uncompressed, or as gzip") as refused:
        check_encoding(encoding)
    assert refused.value.reason == "unsupported_content_encoding"


def test_plain_bodies_and_every_decoder_pass() -> None:
    for encoding in (b"", b"identity", *DECODERS):
        check_encoding(encoding)


def test_what_gzip_writes_is_read() -> None:
    compress: Callable[[bytes], bytes] = gzip.compress
    assert expanded(b"x-gzip", [compress(b"{}")]) == b"{}"
