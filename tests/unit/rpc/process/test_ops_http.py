"""The port of probes and Prometheus: whom does it answer, and can a client block it?"""

import contextlib
import os
import resource
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from rpc.access.host_names import is_own_name, name_of
from rpc.config import Address
from rpc.process.ops_http import MAX_CONNECTIONS, OpsServer
from tests.support.examples import examples

WAIT_S = 10.0


@pytest.fixture
def ops() -> Iterator[OpsServer]:
    server = OpsServer(
        Address(host="127.0.0.1", port=0),
        CollectorRegistry(),
        lambda: (False, "loading"),
        {"/page": lambda: {"a": 1}, "/broken": lambda: 1 / 0},
    )
    server.start()
    yield server
    server.stop()


def connect(ops: OpsServer, data: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", ops.port), timeout=WAIT_S)
    with contextlib.suppress(OSError):
        connection.sendall(data)
    return connection


def exchange(ops: OpsServer, data: bytes) -> bytes:
    """Everything received until the end; the client half-closes after `data`."""
    with connect(ops, data) as connection:
        reply = b""
        with contextlib.suppress(OSError):  # it closed first
            connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65536):
                reply += part
        return reply


def get(ops: OpsServer, path: str = "/livez", *headers: str) -> int:
    lines = [f"GET {path} HTTP/1.1", *(headers or ("Host: localhost",)), "Connection: close"]
    reply = exchange(ops, "\r\n".join((*lines, "", "")).encode())
    return int(reply.split(b" ", 2)[1])


def test_the_pages(ops: OpsServer, caplog: pytest.LogCaptureFixture) -> None:
    assert [get(ops, path) for path in ("/livez", "/readyz", "/metrics", "/page", "/x")] == [
        200,
        503,
        200,
        200,
        404,
    ]
    assert get(ops, "/broken") == 500
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(
    "header, status",
    [
        ("Host: localhost:9", 200),
        ("Host: 127.0.0.1", 200),
        ("Host: [::1]:9", 200),
        ("Host: rebound.evil.example", 403),
        ("Host: rebound.evil.example:9", 403),
        ("Host: 10.0.0.1", 200),
        ("Host: 10.0.0.1.evil.example", 403),
        ("Host: evil.example.", 403),
        ("Host: localhost.evil.example", 403),
        ("Host: user@localhost", 403),
        ("Host:", 403),
        ("X: y", 400),
        ("Host: localhost\r\nHost: localhost", 400),
        ("Host: rebound.evil.example\r\nHost: localhost", 400),
    ],
)
def test_a_foreign_host_reads_nothing(ops: OpsServer, header: str, status: int) -> None:
    """DNS rebinding: a web page that reaches this port sends its own host name."""
    for path in ("/metrics", "/page", "/livez"):
        assert get(ops, path, header) == status


@pytest.mark.parametrize(
    "host, is_ours",
    [
        ("localhost", True),
        ("LOCALHOST:80", True),
        ("127.9.9.9:80", True),
        ("10.1.2.3:50060", True),
        ("[fd00::7]:50060", True),
        ("router", True),
        ("router.mesh.svc:50060", True),
        ("pool-0.pools.mesh.svc.cluster.local", True),
        ("gpu7.internal", True),
        ("gpu7.internal.", True),
        ("evil.example", False),
        ("svc.evil.example", False),
        ("10.0.0.1.evil.example", False),
        ("metrics.example.com", False),
    ],
)
def test_names_that_no_stranger_can_own(host: str, is_ours: bool) -> None:
    name = name_of(host)
    assert name is not None
    assert is_own_name(name) is is_ours
    assert is_own_name(name, allowed=[name.upper()])
    assert is_own_name(name, allowed=["*"])


@given(st.text() | st.text("aB:/@?#\\[] \t09.").map("[::1]:8".__add__))
def test_any_text_has_a_name_or_none(text: str) -> None:
    name = name_of(text)
    if name is not None:
        assert name
        assert name == name.lower()
        assert not set(name) & set("/@?#\\[] \t")
        is_own_name(name)


def num_request_threads() -> int:
    return sum("process_request" in thread.name for thread in threading.enumerate())


def test_silent_connections_beyond_the_cap_keep_no_probe_out(ops: OpsServer) -> None:
    silent = [connect(ops, b"GET /li") for _ in range(3 * MAX_CONNECTIONS)]
    try:
        for _ in range(5):
            assert get(ops) == 200
            assert get(ops, "/readyz") == 503
        # A connection that was cut has its thread until that has read the end.
        give_up_s = time.monotonic() + 20
        while (num_threads := num_request_threads()) > MAX_CONNECTIONS + 5:
            assert time.monotonic() < give_up_s, num_threads
            time.sleep(0.05)
        assert num_threads > 0
        assert silent[0].recv(10) == b"", "the oldest gave way"
    finally:
        for connection in silent:
            connection.close()


def test_a_flood_that_never_stops_keeps_no_probe_out(ops: OpsServer) -> None:
    stop, flooded = threading.Event(), threading.Event()

    def flood() -> None:
        held: list[socket.socket] = []
        while not stop.is_set():
            with contextlib.suppress(OSError):
                held.append(connect(ops))
            if len(held) > MAX_CONNECTIONS:
                flooded.set()
            if len(held) > 300:
                held.pop(0).close()
        for connection in held:
            connection.close()

    flooding = threading.Thread(target=flood)
    flooding.start()
    try:
        assert flooded.wait(WAIT_S)
        for _ in range(5):
            assert get(ops) == 200
    finally:
        stop.set()
        flooding.join(WAIT_S)


def test_without_descriptors_the_oldest_connections_are_given_up(ops: OpsServer) -> None:
    """accept() fails: its thread neither spins nor forgets the waiting probe."""
    silent = [connect(ops) for _ in range(10)]
    deadline_s = time.monotonic() + WAIT_S
    assert ops._server is not None
    while len(ops._server._open) < 10:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    probe = socket.socket()
    probe.settimeout(WAIT_S)
    highest = max(connection.fileno() for connection in (*silent, probe))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, limits[1]))
    taken: list[int] = []
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(probe.fileno()))
        probe.connect(("127.0.0.1", ops.port))
        probe.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        reply = probe.recv(4096)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for descriptor in taken:
            os.close(descriptor)
        for connection in (*silent, probe):
            connection.close()
    assert reply.startswith(b"HTTP/1.1 200")


def test_a_body_is_no_second_request(ops: OpsServer) -> None:
    inner = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
    head = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(inner)
    assert exchange(ops, head + inner).count(b"HTTP/1.1 ") == 1


request_lines = st.sampled_from(
    [
        b"GET /livez HTTP/1.1",
        b"GET /metrics HTTP/1.0",
        b"GET /",
        b"POST /page HTTP/1.1",
        b"GET http://a/b HTTP/1.1",
        b"PRI * HTTP/2.0",
        b"GET  /livez  HTTP/1.1",
        b"\x16\x03\x01",
    ]
)
header_lines = st.sampled_from(
    [
        *(b"Host: localhost", b"Host: evil.example", b"Host:", b"Connection: keep-alive"),
        *(b"Expect: 100-continue", b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        *(b" folded", b"no colon", b": empty", b"X: \0\xff", b"X" * 9_000),
    ]
)


@st.composite
def requests(draw: Any) -> bytes:
    """A request with some bytes replaced."""
    lines = [draw(request_lines), *draw(st.lists(header_lines, max_size=6)), b"", b""]
    data = bytearray(draw(st.sampled_from([b"\r\n", b"\n", b"\r"])).join(lines))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        data[at : at + draw(st.integers(0, 4))] = draw(st.binary(max_size=4))
    return bytes(data) + draw(st.binary(max_size=20))


@pytest.mark.hypothesis
def test_random_requests_never_stop_it(ops: OpsServer) -> None:
    @examples(150)
    @given(requests())
    def send(data: bytes) -> None:
        reply = exchange(ops, data)
        assert b"Traceback" not in reply
        if b"evil.example" in data and b"localhost" not in data and b"HTTP/1.1" in data:
            assert b"HTTP/1.1 200" not in reply
        assert not reply or reply[:5] in (b"HTTP/", b"ok\n", b"one H", b"not f", b"this ", b"<!DOC")

    send()
    assert get(ops) == 200
