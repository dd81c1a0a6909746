"""Rows A4 and A3: clients that pause, send byte by byte, or are merely slow."""

import select
import time
from typing import Any

import pytest

from gateway.limits import Limits
from moe_model.text.tokenizer import Tokenizer
from tests.support.gateway.answers import thinking_answer
from tests.support.gateway.fake_attention import say
from tests.support.gateway.harness import Harness
from tests.support.gateway.model import EOS
from tests.support.gateway.raw_http import POST, error_of, exchange, read_all, status_of


class TestSlowness:
    @pytest.fixture
    def hasty(self, make_gateway: Any) -> Harness:
        gateway: Harness = make_gateway(limits=Limits(header_timeout_s=0.2, body_idle_s=0.3))
        return gateway

    def test_a_connection_that_says_nothing_is_closed(self, hasty: Harness) -> None:
        assert exchange(hasty, b"") == b""

    def test_a_header_that_never_ends_is_408(self, hasty: Harness) -> None:
        assert status_of(exchange(hasty, b"GET /livez HTTP/1.1\r\nHost: local")) == 408

    def test_a_header_that_drips_is_408(self, hasty: Harness) -> None:
        with hasty.socket() as connection:
            try:
                for byte in b"GET /livez HTTP/1.1\r\nX: " + b"a" * 1000:
                    connection.sendall(bytes([byte]))
                    time.sleep(0.01)
            except OSError:
                pass
            else:
                pytest.fail("the connection stayed open")

    def test_a_body_that_never_comes_is_408(self, hasty: Harness) -> None:
        reply = exchange(hasty, POST + b'Content-Length: 100\r\n\r\n{"model"')
        assert status_of(reply) == 408

    @pytest.fixture
    def patient(self, make_gateway: Any) -> Harness:
        """A body may pause for half a second and must bring 1,000 bytes a second."""
        limits = Limits(body_idle_s=0.5, body_bytes_per_s=1000, body_total_s=60)
        gateway: Harness = make_gateway(limits=limits)
        return gateway

    @staticmethod
    def drip(gateway: Harness, pieces: list[bytes], pause_s: float) -> bytes:
        """Send a body in pieces; returns what comes back, as soon as something does."""
        size = sum(map(len, pieces))
        with gateway.socket() as connection:
            connection.sendall(
                POST + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % size + pieces[0]
            )
            for piece in pieces[1:]:
                if select.select([connection], [], [], pause_s)[0]:
                    break
                connection.sendall(piece)
            return read_all(connection)

    def test_a_slow_body_that_keeps_its_pace_is_read(self, patient: Harness) -> None:
        body = b'{"model": "%s"}' % (b"x" * 2000)
        pieces = [body[i : i + 200] for i in range(0, len(body), 200)]
        assert status_of(self.drip(patient, pieces, 0.1)) == 404

    def test_a_body_that_drips_is_408_though_it_never_pauses_for_long(
        self, patient: Harness
    ) -> None:
        reply = self.drip(patient, [b"x"] * 2000, 0.01)
        assert status_of(reply) == 408
        assert error_of(reply)["code"] == "bad_http"

    def test_a_body_that_stops_after_a_megabyte_is_408(self, patient: Harness) -> None:
        """Its fast first megabyte earns it no time for a pause."""
        assert status_of(self.drip(patient, [b"x" * 2**20, b"x"], 10)) == 408

    def test_a_slow_answer_is_not_a_slow_request(
        self, hasty: Harness, tokenizer: Tokenizer
    ) -> None:
        ids = thinking_answer(tokenizer, "hm", "hi")
        hasty.script(lambda r: [0.8, *say(ids, eos=EOS)(r)])
        assert hasty.chat().status_code == 200

    def test_an_idle_connection_can_be_used_again(self, make_gateway: Any) -> None:
        """Each request has its own time limit: the pauses together are longer than one may be."""
        gateway = make_gateway(limits=Limits(header_timeout_s=2.0))
        with gateway.socket() as connection:
            for _ in range(4):
                connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
                received = b""
                while not received.endswith(b"ok\n"):
                    part = connection.recv(4096)
                    assert part, "the connection was closed"
                    received += part
                assert status_of(received) == 200
                time.sleep(0.55)
