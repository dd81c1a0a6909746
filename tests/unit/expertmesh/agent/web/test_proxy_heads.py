"""What of a browser's request goes to a server."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expertmesh.agent.web.proxy_heads import (
    BadHeadError,
    Forward,
    Tunnel,
    closing_answer,
    read_request,
)
from expertmesh.agent.web.urls import BadUrlError


def head(line: str, *fields: str) -> bytes:
    return "\r\n".join([line, *fields, "", ""]).encode("latin-1")


def test_a_request_is_asked_of_the_server_itself() -> None:
    request = read_request(
        head(
            "POST http://A.test:8080/x?y HTTP/1.1",
            "Host: other.test",
            "Proxy-Connection: keep-alive",
            "Proxy-Authorization: Basic x",
            "Upgrade: h2c",
            "Cookie: a=b",
            "Content-Length: 3",
        )
    )
    assert isinstance(request, Forward)
    assert (request.url.host, request.url.port, request.body_bytes) == ("a.test", 8080, 3)
    assert request.head == head(
        "POST /x?y HTTP/1.1",
        "Host: a.test:8080",
        "Connection: close",
        "Cookie: a=b",
        "Content-Length: 3",
    )


@pytest.mark.parametrize(
    ("target", "tunnel"),
    [("A.test:443", Tunnel("a.test", 443)), ("[::1]:80", Tunnel("::1", 80))],
)
def test_a_tunnel_names_a_host_and_a_port(target: str, tunnel: Tunnel) -> None:
    assert read_request(head(f"CONNECT {target} HTTP/1.1")) == tunnel


@pytest.mark.parametrize(
    "lines",
    [
        ["GET / HTTP/1.1"],
        ["GET https://a.test/ HTTP/1.1"],
        ["GET ftp://a.test/ HTTP/1.1"],
        ["GET file:///etc/passwd HTTP/1.1"],
        ["GET http://a@127.0.0.1/ HTTP/1.1"],
        ["GET http://2130706433/ HTTP/1.1"],
        ["CONNECT a.test HTTP/1.1"],
        ["CONNECT a.test:0 HTTP/1.1"],
        ["CONNECT u@a.test:443 HTTP/1.1"],
        ["CONNECT a.test:443/ HTTP/1.1"],
        ["TRACE http://a.test/ HTTP/1.1"],
        ["get http://a.test/ HTTP/1.1"],
        ["GET http://a.test/ HTTP/2.0"],
        ["GET http://a.test/  HTTP/1.1"],
        ["GET http://a.test/ HTTP/1.1", "A: b\nGET /inner HTTP/1.1"],
        ["GET http://a.test/ HTTP/1.1", "A: b\rX: c"],
        ["GET http://a.test/ HTTP/1.1", " folded: x"],
        ["GET http://a.test/ HTTP/1.1", "A : b"],
        ["POST http://a.test/ HTTP/1.1", "Transfer-Encoding: chunked"],
        ["POST http://a.test/ HTTP/1.1", "Content-Length: 1", "Content-Length: 2"],
        ["POST http://a.test/ HTTP/1.1", "Content-Length: -1"],
        ["POST http://a.test/ HTTP/1.1", "Content-Length: 1, 1"],
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(lines: list[str]) -> None:
    with pytest.raises((BadHeadError, BadUrlError)):
        read_request(head(*lines))


@given(st.binary(max_size=200))
def test_no_bytes_make_a_request_with_two_heads(data: bytes) -> None:
    try:
        request = read_request(b"GET http://a.test/ HTTP/1.1\r\n" + data + b"\r\n\r\n")
    except (BadHeadError, BadUrlError):
        return
    assert isinstance(request, Forward)
    assert request.head.count(b"\r\n\r\n") == 1
    assert b"\n" not in request.head.replace(b"\r\n", b"")


def test_an_answer_ends_with_its_connection() -> None:
    raw = head("HTTP/1.1 200 OK", "Connection: keep-alive", "Content-Length: 2", "not a field")
    status, passed = closing_answer(raw)
    assert status == 200
    assert passed == head("HTTP/1.1 200 OK", "Content-Length: 2", "Connection: close")


@pytest.mark.parametrize("line", ["HTTP/2 200", "SSH-2.0-x", "", "HTTP/1.1 20"])
def test_an_answer_of_another_protocol_is_refused(line: str) -> None:
    with pytest.raises(BadHeadError):
        closing_answer(head(line))
