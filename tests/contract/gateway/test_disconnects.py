"""Rows F1, F2 and A4: a client that leaves or does not read cancels its generation."""

import json
import socket
import time
from typing import Any

import pytest

from gateway.limits import Limits
from tests.support.gateway.fake_attention import Item, tokens
from tests.support.gateway.harness import Harness
from tests.support.gateway.leaving_client import send
from tests.support.gateway.model import NAME


def endless(pause_s: float = 0.005) -> Any:
    """Tokens until it is stopped (or the context is full)."""

    def script(request: Any) -> list[Item]:
        items: list[Item] = []
        for index in range(request.sampling.max_tokens):
            items += [tokens(index, [65]), pause_s]
        return [*items, 60.0]

    return script


def reset(connection: socket.socket) -> None:
    """Close with RST instead of FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()


@pytest.mark.parametrize("close", [socket.socket.close, reset], ids=["fin", "rst"])
@pytest.mark.parametrize("until", [b"\r\n\r\n", b"reasoning_content", b'"A"}'])
def test_leaving_a_stream_cancels_it(gateway: Harness, close: Any, until: bytes) -> None:
    gateway.script(endless())
    before = gateway.metric("client_disconnects_total")
    connection = send(gateway, stream=True)
    received = b""
    while until not in received:
        received += connection.recv(4096)
    close(connection)
    gateway.wait_for(lambda: gateway.fake.cancelled == 1)
    gateway.wait_for(lambda: gateway.metric("client_disconnects_total") == before + 1)


@pytest.mark.parametrize("stream", [False, True])
def test_leaving_before_the_first_token_cancels(gateway: Harness, stream: bool) -> None:
    gateway.script(lambda r: [60.0])
    connection = send(gateway, stream=stream)
    gateway.wait_for(lambda: gateway.fake.running == 1)
    connection.close()
    gateway.wait_for(lambda: gateway.fake.cancelled == 1)


def test_leaving_while_the_headers_wait_cancels(make_gateway: Any) -> None:
    gateway = make_gateway(limits=Limits(early_error_wait_s=1e6))
    gateway.script(lambda r: [60.0])
    connection = send(gateway, stream=True)
    gateway.wait_for(lambda: gateway.fake.running == 1)
    connection.close()
    gateway.wait_for(lambda: gateway.fake.cancelled == 1)
    gateway.wait_for(lambda: gateway.metric("client_disconnects_total") == 1)


def test_leaving_a_whole_answer_cancels_every_choice(gateway: Harness) -> None:
    gateway.script(endless())
    connection = send(gateway, n=4)
    gateway.wait_for(lambda: gateway.fake.running == 4)
    connection.close()
    gateway.wait_for(lambda: gateway.fake.cancelled == 4)


def test_leaving_is_no_error_in_the_log(gateway: Harness, caplog: pytest.LogCaptureFixture) -> None:
    gateway.script(endless())
    for _ in range(5):
        connection = send(gateway, stream=True)
        connection.recv(100)
        reset(connection)
    gateway.wait_for(lambda: gateway.fake.cancelled == 5)
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


def test_counters_return_to_zero(gateway: Harness) -> None:
    gateway.script(endless())
    for stream in (True, False):
        connection = send(gateway, stream=stream)
        gateway.wait_for(lambda: gateway.fake.running == 1)
        connection.close()
        gateway.wait_for(lambda: gateway.fake.running == 0)
    gateway.wait_for(lambda: not gateway.service.gateway.active)
    assert gateway.metric("requests_running") == 0
    assert gateway.metric("requests_waiting") == 0


def test_a_client_that_never_reads_is_cut_off_and_others_are_served(
    make_gateway: Any, tmp_path: Any
) -> None:
    from tests.support.gateway.harness import ready_status
    from tests.support.gateway.model import write_tiny_model

    folder = write_tiny_model(tmp_path / "long", context=1_000_000)
    gateway = make_gateway(
        model_folder=folder,
        status=ready_status(1_000_000),
        limits=Limits(write_timeout_s=0.3),
    )

    def flood(request: Any) -> Any:
        return (tokens(index, [65]) for index in range(900_000))

    gateway.script(flood)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", gateway.port))
    body = json.dumps({"model": NAME, "prompt": "a", "stream": True, "logprobs": 20}).encode()
    connection.sendall(
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    )
    gateway.wait_for(lambda: gateway.fake.running == 1)
    streams = next(iter(gateway.service.gateway.active))
    gateway.wait_for(lambda: gateway.fake.cancelled == 1, timeout_s=30)
    assert streams._queue.qsize() <= Limits().queued_events
    gateway.script(lambda r: [tokens(0, [65]), tokens(1, [302])])
    assert gateway.get("/livez").status_code == 200
    connection.close()


def test_a_slow_reader_gets_everything_in_order(gateway: Harness) -> None:
    """Row F2: nothing is lost when the client pauses, as long as it reads on."""
    gateway.script(
        lambda r: [
            *(tokens(i, [65 + i % 26]) for i in range(100)),
            *_end(100),
        ]
    )
    body = json.dumps({"model": NAME, "prompt": "a", "stream": True}).encode()
    connection = gateway.socket()
    connection.sendall(
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    )
    received = b""
    while part := connection.recv(256):
        received += part
        time.sleep(0.0005)
    text = "".join(
        json.loads(line[6:])["choices"][0]["text"]
        for line in received.decode().splitlines()
        if line.startswith("data: {")
    )
    assert text == "".join(chr(65 + i % 26) for i in range(100))


def _end(count: int) -> list[Item]:
    from tests.support.gateway.fake_attention import length

    return [length(count)]
