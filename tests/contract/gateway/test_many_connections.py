"""Row A8 and worse: who is still served when connections take up all places?"""

import contextlib
import logging
import re
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.http.connections import ConnectionTable
from gateway.limits import Limits
from moe_model.text.tokenizer import Tokenizer
from tests.support.gateway.answers import thinking_answer
from tests.support.gateway.fake_attention import say
from tests.support.gateway.harness import WAIT_S, Harness
from tests.support.gateway.model import EOS
from tests.support.gateway.raw_http import CHAT, POST, exchange, read_all, status_of

KEY = "a-key-for-the-client"
BEARER = {"authorization": f"Bearer {KEY}"}
OWING = POST + b"Content-Length: 9000\r\n\r\n{"
GET = b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n"
SMALL: Any = {"max_connections": 12, "max_connections_per_address": 12, "probe_connections": 8}


@pytest.fixture
def opened() -> Iterator[list[socket.socket]]:
    """Closed at the end."""
    connections: list[socket.socket] = []
    yield connections
    for connection in connections:
        connection.close()


def table_of(gateway: Harness) -> ConnectionTable:
    table: ConnectionTable = gateway.service._server.config.http.args[0]
    return table


def connect(gateway: Harness, data: bytes = b"", source: str = "127.0.0.1") -> socket.socket:
    connection = socket.create_connection(
        ("127.0.0.1", gateway.port), timeout=WAIT_S, source_address=(source, 0)
    )
    with contextlib.suppress(OSError):
        connection.sendall(data)
    return connection


def answer(connection: socket.socket) -> int:
    """The status of one whole answer, the connection left for the next; 0 when it is closed."""
    reply = b""
    while b"\r\n\r\n" not in reply:
        part = connection.recv(65536)
        if not part:
            return 0
        reply += part
    head, _, body = reply.partition(b"\r\n\r\n")
    size = int(re.search(rb"content-length: (\d+)", head.lower())[1])
    while len(body) < size:
        body += connection.recv(65536)
    return status_of(head)


def ask(connection: socket.socket, path: bytes, headers: bytes = b"") -> int:
    """The status of a GET on an open connection; 0 when it is closed."""
    try:
        connection.sendall(GET.replace(b"\r\n\r\n", b"\r\n" + headers + b"\r\n") % path)
        return answer(connection)
    except OSError:
        return 0


def test_requests_without_a_key_that_owe_their_body_keep_nobody_out(
    make_gateway: Any, opened: list[socket.socket], tokenizer: Tokenizer
) -> None:
    """Each is answered 401 at once; while they stay open, others are served."""
    gateway = make_gateway(limits=Limits(**SMALL, linger_s=60.0), api_key=(KEY,))
    gateway.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
    for _ in range(60):
        opened.append(connect(gateway, OWING))
    assert answer(opened[-1]) == 401
    for _ in range(3):
        assert gateway.get("/livez").status_code == 200
        assert gateway.get("/readyz").status_code == 200
        reply = gateway.post("/v1/chat/completions", CHAT, headers=BEARER)
        assert reply.status_code == 200
        opened.append(connect(gateway, OWING))


def test_an_answered_request_that_never_brings_its_body_is_closed_after_its_answer(
    make_gateway: Any,
) -> None:
    gateway = make_gateway(limits=Limits(linger_s=0.3), api_key=(KEY,))
    with connect(gateway, OWING) as connection:
        assert status_of(read_all(connection)) == 401  # and the end
    with connect(gateway, OWING) as connection:  # the same while it drips
        assert answer(connection) == 401
        with contextlib.suppress(ConnectionError):
            for _ in range(500):
                connection.sendall(b"x")
                time.sleep(0.02)
            pytest.fail("the connection stayed open")
    gateway.wait_for(lambda: table_of(gateway).open == 0)


def test_a_body_that_comes_after_its_answer_leaves_the_connection_usable(make_gateway: Any) -> None:
    gateway = make_gateway(api_key=(KEY,))
    with connect(gateway, OWING) as connection:
        assert answer(connection) == 401
        connection.sendall(b"x" * 8999)
        assert ask(connection, b"/livez") == 200


@pytest.mark.parametrize("close", [b"", b"Connection: close\r\n"])
def test_a_client_that_reads_only_after_sending_all_gets_its_answer(
    make_gateway: Any, close: bytes
) -> None:
    """Closing on unread bytes would reset the connection, and the answer could be lost."""
    gateway = make_gateway(api_key=(KEY,))
    size = 8 * 2**20
    with connect(gateway, POST + close + b"Content-Length: %d\r\n\r\n" % size) as connection:
        for _ in range(size // 65536):
            connection.sendall(b"x" * 65536)
        assert answer(connection) == 401


def test_one_address_leaves_places_to_the_others(
    make_gateway: Any, opened: list[socket.socket], tokenizer: Tokenizer
) -> None:
    """Its connections are all in use, so none of them can be closed for a new one."""
    limits = Limits(**{**SMALL, "max_connections_per_address": 9})
    gateway = make_gateway(limits=limits)
    gateway.script(lambda r: [60.0])
    gateway.wait_for(lambda: table_of(gateway).open == 0)
    request = POST + b"Content-Length: %d\r\n\r\n" % len(CHAT) + CHAT
    for _ in range(9):
        opened.append(connect(gateway, request, source="127.0.0.2"))
    gateway.wait_for(lambda: gateway.fake.running == 9)
    refused = connect(gateway, GET % b"/v1/models", source="127.0.0.2")
    opened.append(refused)
    assert status_of(read_all(refused)) == 503
    others = [connect(gateway, source="127.0.0.3") for _ in range(3)]
    opened += others
    assert [ask(other, b"/v1/models") for other in others] == [200] * 3


def test_probes_are_answered_when_every_place_is_in_use(
    make_gateway: Any, opened: list[socket.socket]
) -> None:
    gateway = make_gateway(limits=Limits(**SMALL))
    gateway.script(lambda r: [60.0])
    gateway.wait_for(lambda: table_of(gateway).open == 0)
    for _ in range(12):
        opened.append(connect(gateway, POST + b"Content-Length: %d\r\n\r\n" % len(CHAT) + CHAT))
    gateway.wait_for(lambda: gateway.fake.running == 12)
    for _ in range(30):  # silent ones on the places for probes
        opened.append(connect(gateway))
    for path in ("/livez", "/readyz", "/health", "/livez?verbose"):
        assert gateway.get(path).status_code == 200
    reply = exchange(gateway, GET % b"/v1/models")
    assert status_of(reply) == 503
    assert b"oo many connections" in reply
    assert gateway.fake.running == 12
    assert gateway.service.gateway.metrics.connections_refused._value.get() == 1
    opened.pop(0).close()
    gateway.wait_for(lambda: gateway.fake.running == 11)
    assert gateway.get("/v1/models").status_code == 200


def test_a_clients_idle_connection_outlives_a_flood_of_strangers(
    make_gateway: Any, opened: list[socket.socket]
) -> None:
    gateway = make_gateway(limits=Limits(**SMALL), api_key=(KEY,))
    authorised = b"Authorization: Bearer %s\r\n" % KEY.encode()
    with connect(gateway) as client:
        assert ask(client, b"/v1/models", authorised) == 200
        for _ in range(100):
            opened.append(connect(gateway, OWING))
        assert ask(client, b"/v1/models", authorised) == 200


def test_strangers_that_never_read_their_refusals_give_way(
    make_gateway: Any, opened: list[socket.socket]
) -> None:
    """Answers that cannot be sent make a request unfinished, not one that is being served."""
    gateway = make_gateway(limits=Limits(**SMALL), api_key=(KEY,))
    many = (GET % b"/v1/models") * 40_000
    for _ in range(12):
        connection = connect(gateway)
        opened.append(connection)
        connection.setblocking(False)
        sent, quiet_since_s = 0, time.monotonic()
        while sent < len(many) and time.monotonic() - quiet_since_s < 0.5:
            try:
                sent += connection.send(many[sent : sent + 65536])
                quiet_since_s = time.monotonic()
            except BlockingIOError:
                time.sleep(0.01)
    assert gateway.get("/v1/models", headers=BEARER).status_code == 200


def test_a_silent_newcomer_beyond_the_caps_is_told_soon(
    make_gateway: Any, opened: list[socket.socket]
) -> None:
    gateway = make_gateway(limits=Limits(**SMALL, probe_header_s=0.2))
    gateway.script(lambda r: [60.0])
    gateway.wait_for(lambda: table_of(gateway).open == 0)
    for _ in range(12):
        opened.append(connect(gateway, POST + b"Content-Length: %d\r\n\r\n" % len(CHAT) + CHAT))
    gateway.wait_for(lambda: gateway.fake.running == 12)
    assert status_of(exchange(gateway, b"")) == 503


@pytest.mark.parametrize("path", ["/tokenize", "/detokenize"])
def test_tokenizing_counts_among_a_clients_requests(
    make_gateway: Any, opened: list[socket.socket], path: str
) -> None:
    gateway = make_gateway(limits=Limits(concurrent_per_key=2))
    slow = POST.replace(b"/v1/chat/completions", path.encode()) + b"Content-Length: 9\r\n\r\n{"
    before = gateway.service.gateway.slots._of_key["anonymous"]
    opened += [connect(gateway, slow), connect(gateway, slow)]
    gateway.wait_for(lambda: before.inside == 2)
    assert gateway.post(path, {"prompt": "x", "tokens": [1]}).status_code == 429
    for connection in opened:
        connection.close()
    gateway.wait_for(lambda: before.inside == 0)
    assert gateway.post("/tokenize", {"prompt": "x"}).status_code == 200


def test_connections_that_are_cut_leave_no_timer_behind(
    make_gateway: Any, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = make_gateway(limits=Limits(write_timeout_s=0.2, linger_s=0.2))
    caplog.set_level(logging.ERROR)
    for _ in range(10):
        for data in (OWING, GET % b"/livez", b"nonsense\r\n\r\n", b"GET /", b""):
            connection = connect(gateway, data)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.close()
        with connect(gateway, b"nonsense\r\n\r\n") as connection:
            assert answer(connection) == 400
    gateway.wait_for(lambda: table_of(gateway).open == 0)
    time.sleep(0.5)  # longer than every timer
    assert [record.getMessage() for record in caplog.records] == []
