"""Rows A1 to A10 over raw sockets: what no well-behaved client sends."""

import gzip
import os
import resource
import socket
import time
from typing import Any

import pytest

from gateway.limits import Limits
from moe_model.text.tokenizer import Tokenizer
from tests.support.gateway.answers import thinking_answer
from tests.support.gateway.fake_attention import say
from tests.support.gateway.harness import Harness
from tests.support.gateway.model import EOS
from tests.support.gateway.raw_http import CHAT, POST, error_of, exchange, read_all, status_of


@pytest.fixture
def talking(gateway: Harness, tokenizer: Tokenizer) -> Harness:
    gateway.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
    return gateway


class TestHeaders:
    @pytest.mark.parametrize(
        "head, statuses",
        [
            (b"X-Big: " + b"a" * 2**20 + b"\r\n", {431}),
            (b"".join(b"X-%d: a\r\n" % i for i in range(10_000)), {431}),
            (b"X-Medium: " + b"a" * 17_000 + b"\r\n", {431}),
            (b"X-N\0ul: a\r\n", {400}),
            (b"X-Nul: a\0b\r\n", {400}),
            (b"X Space: a\r\n", {400}),
            (b"X-Fold: a\r\n b\r\n\tc: d\r\n", {200, 400, 404}),
            (b": empty\r\n", {400}),
        ],
        ids=["1MB", "10000", "17KB", "nul-name", "nul-value", "space", "fold", "empty"],
    )
    def test_a_bad_header_is_refused(
        self, gateway: Harness, head: bytes, statuses: set[int]
    ) -> None:
        reply = exchange(
            gateway,
            b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + head + b"\r\n",
        )
        assert status_of(reply) in statuses
        if status_of(reply) in (400, 431):
            assert error_of(reply)["code"] == "bad_http"
            assert b"connection: close" in reply.lower()

    def test_a_long_target_is_refused(self, gateway: Harness) -> None:
        data = b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"
        assert status_of(exchange(gateway, data)) == 431

    @pytest.mark.parametrize(
        "data",
        [
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"hello\r\n\r\n",
            b"\0" * 100,
            b"GET /\r\n\r\n",
        ],
        ids=["tls", "text", "nul", "http09"],
    )
    def test_what_is_not_http_is_refused(self, gateway: Harness, data: bytes) -> None:
        assert status_of(exchange(gateway, data + b"\r\n\r\n")) == 400

    def test_http_1_1_needs_a_host(self, gateway: Harness) -> None:
        assert status_of(exchange(gateway, b"GET /livez HTTP/1.1\r\n\r\n")) == 400
        data = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n"
        assert status_of(exchange(gateway, data)) == 400


class TestStrictness:
    """Requests that a proxy might read in another way are refused."""

    @pytest.mark.parametrize(
        "data",
        [
            b"GET /livez HTTP/1.1\nHost: localhost\n\n",
            b"GET /livez HTTP/1.1\r\nHost: localhost\n\r\n",
            b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: a\nY: b\r\n\r\n",
            b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\n",
            b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: a\rY: b\r\n\r\n",
        ],
    )
    def test_lines_end_with_cr_and_lf(self, gateway: Harness, data: bytes) -> None:
        assert status_of(exchange(gateway, data)) == 400

    @pytest.mark.parametrize("end", [b"0\r\n\n", b"0\r\nX: a\n\n", b"0\r\nX: a\r\n\n"])
    def test_lines_of_trailers_too(self, gateway: Harness, end: bytes) -> None:
        body = b"2\r\n{}\r\n" + end
        reply = exchange(gateway, POST + b"Transfer-Encoding: chunked\r\n\r\n" + body)
        assert status_of(reply) == 400
        assert error_of(reply)["code"] == "bad_http"

    def test_trailers_have_the_bound_of_headers(self, gateway: Harness) -> None:
        body = b"2\r\n{}\r\n0\r\nX: " + b"a" * 20_000 + b"\r\n\r\n"
        reply = exchange(gateway, POST + b"Transfer-Encoding: chunked\r\n\r\n" + body)
        assert status_of(reply) == 431

    @pytest.mark.parametrize("version", [b"0.9", b"1.2", b"2.0", b"9.9"])
    def test_other_versions_are_505(self, gateway: Harness, version: bytes) -> None:
        data = b"GET /livez HTTP/%s\r\nHost: localhost\r\n\r\n" % version
        assert status_of(exchange(gateway, data)) == 505

    def test_the_preface_of_http_2_is_refused_once(self, gateway: Harness) -> None:
        reply = exchange(gateway, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
        assert status_of(reply) == 505
        assert reply.count(b"content-length: ") == 1

    @pytest.mark.parametrize(
        "first, second",
        [
            (b"Origin: http://evil.example", b"Origin: http://localhost"),
            (b"Origin: http://localhost", b"origin: http://localhost"),
            (b"Content-Encoding: gzip", b"Content-Encoding: identity"),
            (b"Content-Type: text/plain", b"Content-Type: application/json"),
            (b"Content-Length: 2", b"Content-Length: 2"),
            (b"Content-Length: 2", b"CONTENT-LENGTH: 2"),
            (b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
            (b"Host: evil.example", b"X: y"),
            (b"Expect: 100-continue", b"Expect: 100-continue"),
        ],
    )
    def test_a_header_that_decides_may_come_only_once(
        self, gateway: Harness, first: bytes, second: bytes
    ) -> None:
        head = b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        for lines in ((first, second), (second, first)):
            data = head + b"\r\nX: y\r\n".join(lines) + b"\r\n\r\n{}"
            assert status_of(exchange(gateway, data)) == 400

    def test_others_may_be_repeated(self, gateway: Harness) -> None:
        data = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        data += b"Accept: a\r\nAccept: b\r\nX-Forwarded-For: a\r\nX-Forwarded-For: b\r\n\r\n"
        assert status_of(exchange(gateway, data)) == 200


class TestBodies:
    def test_a_body_of_exactly_the_cap_is_read_and_one_byte_more_is_413(
        self, make_gateway: Any
    ) -> None:
        gateway = make_gateway(limits=Limits(body_bytes=1000))
        fits = b'{"model": "' + b"x" * (1000 - 13) + b'"}'
        assert len(fits) == 1000
        assert gateway.post("/v1/chat/completions", fits).status_code == 404
        reply = gateway.post("/v1/chat/completions", fits + b" ")
        assert reply.status_code == 413
        assert reply.json()["error"]["code"] == "request_too_large"

    def test_a_chunked_body_beyond_the_cap_is_413(self, make_gateway: Any) -> None:
        gateway = make_gateway(limits=Limits(body_bytes=1000))
        data = POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"3e8\r\n" + b"x" * 1000 + b"\r\n"
        reply = exchange(gateway, data + b"1\r\ny\r\n0\r\n\r\n")
        assert status_of(reply) == 413

    def test_seventeen_megabytes_are_413_for_a_real_client(self, gateway: Harness) -> None:
        reply = gateway.post("/v1/chat/completions", b" " * (17 * 2**20))
        assert reply.status_code == 413

    def test_an_overlong_body_that_never_comes_is_413_soon(self, gateway: Harness) -> None:
        """Read on for a moment, for clients that are still sending, but not until they are done."""
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        head += b"Content-Type: application/json\r\nContent-Length: 99999999\r\n\r\n{"
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=15) as connection:
            connection.sendall(head)
            assert connection.recv(65536).startswith(b"HTTP/1.1 413")

    def test_the_announcement_alone_is_refused_without_waiting(self, gateway: Harness) -> None:
        data = POST + b"Content-Length: 99999999999\r\nExpect: 100-continue\r\n\r\n"
        assert status_of(exchange(gateway, data)) == 413

    @pytest.mark.parametrize(
        "head",
        [
            b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            b"Content-Length: 5\r\nContent-Length: 6\r\n",
            b"Content-Length: -5\r\n",
            b"Content-Length: 5a\r\n",
            b"Content-Length: +5\r\n",
            b"Content-Length: " + b"9" * 100 + b"\r\n",
            b"Transfer-Encoding: gzip, chunked\r\n",
            b"Transfer-Encoding: xchunked\r\n",
        ],
    )
    def test_lengths_that_disagree_are_refused(self, gateway: Harness, head: bytes) -> None:
        reply = exchange(gateway, POST + head + b"\r\n0\r\n\r\nGET /livez HTTP/1.1\r\n\r\n")
        assert status_of(reply) in (400, 413, 501)
        assert reply.count(b"HTTP/1.1 ") == 1, "a smuggled request was answered"

    def test_a_length_that_lies_low_does_not_start_a_second_request(self, gateway: Harness) -> None:
        reply = exchange(gateway, POST + b"Content-Length: 2\r\n\r\n{}garbage\r\n\r\n")
        assert reply.count(b"HTTP/1.1 200") == 0
        assert status_of(reply) in (400, 404)

    @pytest.mark.parametrize("encoding", [b"br", b"deflate", b"gzip, gzip", b"zstd, identity"])
    def test_bodies_in_other_encodings_are_415(self, gateway: Harness, encoding: bytes) -> None:
        bomb = gzip.compress(b"\0" * 10_000_000)
        data = POST + b"Content-Encoding: %s\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % (
            encoding,
            len(bomb),
        )
        assert status_of(exchange(gateway, data + bomb)) == 415

    @pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data; boundary=x", ""])
    def test_other_content_types_are_415(self, gateway: Harness, kind: str) -> None:
        reply = gateway.post("/v1/chat/completions", CHAT, headers={"content-type": kind})
        assert reply.status_code == 415

    def test_chunks_of_one_byte_are_answered_or_408(self, gateway: Harness) -> None:
        """Row A3. Small bodies pass; one-byte chunks do not make millions of events."""
        small = b"".join(b"1\r\n%c\r\n" % byte for byte in CHAT.replace(b"tiny-m2", b"none"))
        data = POST + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert status_of(exchange(gateway, data + small + b"0\r\n\r\n")) == 404
        started_s = time.process_time()
        reply = exchange(gateway, data + b"1\r\na\r\n" * 3_000_000 + b"0\r\n\r\n")
        assert status_of(reply) in (408, 0)  # 0: reset while still sending
        some = data + b"1\r\na\r\n" * 2000
        assert status_of(exchange(gateway, some)) == 408
        assert time.process_time() - started_s < 10
        assert gateway.get("/livez").status_code == 200


class TestPaths:
    @pytest.mark.parametrize(
        "path",
        [
            "/v1",
            "/v1/",
            "/v1/chat",
            "/v1/chat/completions/",
            "//v1/models",
            "/v1//models",
            "/v1/embeddings",
            "/../etc/passwd",
            "/%2e%2e/etc/passwd",
            "/v1/%2e%2e/livez",
            "/livez/",
            "/LIVEZ",
            "/docs/oauth2-redirect",
            "/redoc",
            "/.env",
            "/%00",
            "/v1/models\\x",
        ],
    )
    def test_unknown_paths_have_one_body(self, gateway: Harness, path: str) -> None:
        request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        reply = exchange(gateway, request.encode())
        assert status_of(reply) == 404
        error = error_of(reply)
        assert error["code"] == "not_found"
        assert error == error_of(
            exchange(
                gateway, b"GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            )
        )

    @pytest.mark.parametrize(
        "method, path",
        [
            ("GET", "/v1/chat/completions"),
            ("PUT", "/v1/completions"),
            ("DELETE", "/v1/models"),
            ("POST", "/livez"),
            ("PATCH", "/tokenize"),
            ("TRACE", "/livez"),
            ("FOO", "/metrics"),
        ],
    )
    def test_wrong_methods_have_one_body(self, gateway: Harness, method: str, path: str) -> None:
        reply = exchange(
            gateway,
            f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode(),
        )
        assert status_of(reply) == 405
        assert error_of(reply)["code"] == "method_not_allowed"
        assert b"allow: " in reply.lower()


class TestHttpVersions:
    def test_http_1_0(self, talking: Harness) -> None:
        data = POST.replace(b"HTTP/1.1", b"HTTP/1.0") + b"Content-Length: %d\r\n\r\n" % len(CHAT)
        reply = exchange(talking, data + CHAT)
        assert b" 200 " in reply.split(b"\r\n")[0]
        assert b"hi" in reply

    def test_http_1_0_streams_until_the_close(self, talking: Harness) -> None:
        body = CHAT.replace(b"}]}", b'}], "stream": true}')
        data = POST.replace(b"HTTP/1.1", b"HTTP/1.0") + b"Content-Length: %d\r\n\r\n" % len(body)
        assert b"data: [DONE]" in exchange(talking, data + body)

    def test_pipelined_requests_are_answered_in_order(self, talking: Harness) -> None:
        one = b"GET /v1/models/%s HTTP/1.1\r\nHost: localhost\r\n"
        data = one % b"tiny-m2" + b"\r\n" + one % b"alias" + b"Connection: close\r\n\r\n"
        reply = exchange(talking, data)
        assert reply.count(b"HTTP/1.1 200") == 2
        assert reply.index(b'"id":"tiny-m2"') < reply.index(b'"id":"alias"')

    @pytest.mark.parametrize("upgrade", [b"h2c", b"websocket"])
    def test_upgrades_are_ignored(self, gateway: Harness, upgrade: bytes) -> None:
        reply = exchange(
            gateway,
            b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, close\r\n"
            b"Upgrade: %s\r\nSec-WebSocket-Key: x\r\nHTTP2-Settings: x\r\n\r\n" % upgrade,
        )
        assert status_of(reply) == 200

    def test_expect_100_continue(self, talking: Harness) -> None:
        with talking.socket() as connection:
            connection.sendall(
                POST
                + b"Connection: close\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
                % len(CHAT)
            )
            assert connection.recv(4096).startswith(b"HTTP/1.1 100")
            connection.sendall(CHAT)
            assert status_of(read_all(connection)) == 200


class TestManyConnections:
    def test_the_oldest_idle_connection_makes_room(self, make_gateway: Any) -> None:
        gateway = make_gateway(limits=Limits(max_connections=10))
        connections = [gateway.socket() for _ in range(25)]
        assert gateway.get("/livez").status_code == 200
        assert connections[0].recv(10) == b""
        for connection in connections:
            connection.close()

    def test_busy_connections_are_kept_and_newcomers_told(self, make_gateway: Any) -> None:
        gateway = make_gateway(limits=Limits(max_connections=3))
        gateway.script(lambda r: [60.0])
        gateway.wait_for(lambda: not gateway.service._server.server_state.connections)
        busy = [gateway.socket() for _ in range(3)]
        for connection in busy:
            connection.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(CHAT) + CHAT)
        gateway.wait_for(lambda: gateway.fake.running == 3)
        assert status_of(exchange(gateway, b"")) == 503
        for connection in busy:
            connection.close()
        gateway.wait_for(lambda: gateway.fake.cancelled == 3)
        assert gateway.get("/livez").status_code == 200

    def test_a_storm_of_resets_leaves_nothing_behind(self, gateway: Harness) -> None:
        for _ in range(300):
            connection = gateway.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\n")
            connection.close()
        state = gateway.service._server.server_state
        gateway.wait_for(lambda: not state.connections and not state.tasks)
        assert gateway.get("/livez").status_code == 200


class TestRequestIds:
    def test_every_reply_has_one(self, gateway: Harness) -> None:
        for path in ("/livez", "/nothing", "/v1/models", "/metrics"):
            assert gateway.get(path).headers["x-request-id"].startswith("req_")

    def test_a_sane_one_is_kept_and_others_replaced(self, gateway: Harness) -> None:
        kept = gateway.get("/livez", headers={"x-request-id": "abc-1.2:3_4"})
        assert kept.headers["x-request-id"] == "abc-1.2:3_4"
        for bad in ("a b", "x" * 129, "é".encode(), "a;b"):
            reply = gateway.get("/livez", headers=[("x-request-id", bad)])
            assert reply.headers["x-request-id"].startswith("req_")


@pytest.mark.slow
def test_more_idle_connections_than_allowed_leave_file_descriptors_free(
    make_gateway: Any,
) -> None:
    """Row A8 in full: the cap holds, the newest are served, and all descriptors are freed."""
    gateway = make_gateway()
    cap = Limits().max_connections
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (20_000, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    )
    before = len(os.listdir("/proc/self/fd"))
    connections = [gateway.socket() for _ in range(5000)]
    table = gateway.service._server.config.http.args[0]
    gateway.wait_for(lambda: table.open <= cap)
    assert gateway.get("/livez").status_code == 200
    for connection in connections:
        connection.close()
    gateway.wait_for(lambda: table.open == 0)
    gateway.wait_for(lambda: len(os.listdir("/proc/self/fd")) <= before + 5)
