"""Random bytes to the HTTP parser: refused or read, however they are cut."""

import itertools
from typing import Any

import h11
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.parser import SINGLE_HEADERS, VERSIONS, CheckedConnection
from gateway.limits import Limits
from tests.support.examples import examples

LIMITS = Limits(header_bytes=400, tiny_chunks=10)

lines = st.sampled_from(
    [
        *(b"GET /livez HTTP/1.1", b"POST /v1/chat/completions HTTP/1.1"),
        *(b"GET / HTTP/1.0", b"PRI * HTTP/2.0", b"Host: localhost", b"host: evil.example"),
        *(b"Content-Length: 3", b"Content-Length: 0", b"Content-Length: 3, 3"),
        *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip", b"Expect: 100-continue"),
        *(b"Origin: http://localhost", b"Content-Type: application/json", b"Connection: close"),
        *(b" folded", b"X: " + b"y" * 300, b"X: \0"),
        *(b"0", b"3", b"abc", b"", b"1;extension", b"ffffffffffffffffffff"),
    ]
)
heads = st.sampled_from(
    [
        b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ]
)


@st.composite
def streams(draw: Any) -> bytes:
    """Requests, nearly requests, and what follows them, with some bytes replaced."""
    end = draw(st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r"]))
    built = end.join(draw(st.lists(lines, max_size=9)))
    data = bytearray(b"".join(draw(st.lists(heads | st.just(built), min_size=1, max_size=4))))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(data)


def events_of(pieces: list[bytes]) -> tuple[list[Any], str]:
    """What a server would see: requests, bodies and ends, and how it ended."""
    connection = CheckedConnection(LIMITS)
    seen: list[Any] = []
    for piece in filter(None, pieces):  # to h11 an empty one is the end
        connection.receive_data(piece)
        while True:
            try:
                event = connection.next_event()
            except h11.RemoteProtocolError as error:
                status = error.error_status_hint
                return seen, "refused" if 400 <= status < 600 else f"status {status}"
            if event is h11.NEED_DATA:
                break
            if event is h11.PAUSED:
                for answer in (
                    h11.Response(status_code=200, headers=[(b"content-length", b"0")]),
                    h11.EndOfMessage(),
                ):
                    connection.send(answer)
                if connection.our_state is h11.MUST_CLOSE:
                    return seen, "closed"
                connection.start_next_cycle()
            elif isinstance(event, h11.Data):
                if seen and isinstance(seen[-1], bytearray):
                    seen[-1] += event.data
                else:
                    seen.append(bytearray(event.data))
            elif isinstance(event, h11.Request):
                assert event.http_version in VERSIONS
                names = [name for name, _ in event.headers]
                assert all(names.count(name) < 2 for name in SINGLE_HEADERS)
                seen.append((event.method, event.target, tuple(event.headers)))
            else:
                seen.append("end")
    return seen, "open"


@examples(400)
@given(streams(), st.lists(st.integers(0, 600), max_size=6))
def test_a_stream_is_read_the_same_however_it_is_cut(data: bytes, cuts: list[int]) -> None:
    places = [0, *sorted({min(cut, len(data)) for cut in cuts}), len(data)]
    pieces = [data[a:b] for a, b in itertools.pairwise(places)]
    whole, how_whole = events_of([data])
    cut, how_cut = events_of(pieces)
    assert cut == whole
    assert how_cut == how_whole
    assert how_cut in ("refused", "closed", "open")


@examples(400)
@given(streams())
def test_what_is_read_had_no_bare_line_feed(data: bytes) -> None:
    """An accepted request reads the same when every line feed has its CR: nothing depended on bare
    line feeds."""
    seen, _ = events_of([data])
    requests = [event for event in seen if isinstance(event, tuple)]
    strict = b"\r\n".join(part.removesuffix(b"\r") for part in data.split(b"\n"))
    if strict != data:
        again, _ = events_of([strict])
        assert [event for event in again if isinstance(event, tuple)][: len(requests)] == requests


@examples(200)
@given(st.binary(max_size=300))
def test_noise_is_refused_or_waited_for(data: bytes) -> None:
    seen, _ = events_of([data])
    assert all(not isinstance(event, tuple) for event in seen)
