"""Compressed bodies: served like plain ones, with the same limit while they are expanded."""

import json

import pytest

from gateway.limits import Limits
from moe_model.text.tokenizer import Tokenizer
from tests.support.gateway.answers import thinking_answer
from tests.support.gateway.compressed import COMPRESSORS
from tests.support.gateway.fake_attention import say
from tests.support.gateway.harness import Harness
from tests.support.gateway.model import EOS
from tests.support.gateway.raw_http import CHAT, POST, exchange, status_of
from tests.support.gateway.refusals import error_of

encodings = pytest.mark.parametrize("encoding", sorted(COMPRESSORS))


def head(encoding: bytes, length: int) -> bytes:
    return POST + b"Content-Encoding: %s\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % (
        encoding,
        length,
    )


@encodings
def test_a_compressed_request_is_answered(
    gateway: Harness, tokenizer: Tokenizer, encoding: bytes
) -> None:
    gateway.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
    reply = gateway.post(
        "/v1/chat/completions",
        COMPRESSORS[encoding](CHAT),
        headers={"content-encoding": encoding.decode().upper()},
    )
    assert reply.json()["choices"][0]["message"]["content"] == "hi"


@encodings
def test_a_body_larger_than_the_socket_gives_at_once_arrives_whole(
    gateway: Harness, encoding: bytes
) -> None:
    ids = [97 + i * i % 26 for i in range(200)] * 5000
    body = COMPRESSORS[encoding](json.dumps({"tokens": ids}).encode())
    reply = gateway.post("/detokenize", body, headers={"content-encoding": encoding.decode()})
    assert "has 1000000" in reply.text or "1000000 input tokens" in reply.text


@encodings
def test_a_bomb_is_413(gateway: Harness, encoding: bytes) -> None:
    bomb = COMPRESSORS[encoding](b" " * 20_000_000)
    reply = exchange(gateway, head(encoding, len(bomb)) + bomb)
    assert status_of(reply) == 413
    assert gateway.get("/livez").status_code == 200


@encodings
def test_the_limit_is_that_of_plain_bodies(make_gateway, encoding: bytes) -> None:
    gateway = make_gateway(limits=Limits(body_bytes=1000))
    for size, status in ((1000, 404), (1001, 413)):
        body = b'{"model": "other"' + b" " * (size - 18) + b"}"
        for name, data in ((b"identity", body), (encoding, COMPRESSORS[encoding](body))):
            assert status_of(exchange(gateway, head(name, len(data)) + data)) == status


@encodings
@pytest.mark.parametrize("fault", ["cut", "trailing", "not compressed", "empty"])
def test_a_broken_body_is_400(gateway: Harness, encoding: bytes, fault: str) -> None:
    whole = COMPRESSORS[encoding](CHAT)
    body = {
        "cut": whole[:-1],
        "trailing": whole + b"\n",
        "not compressed": CHAT,
        "empty": b"",
    }[fault]
    reply = gateway.post(
        "/v1/chat/completions", body, headers={"content-encoding": encoding.decode()}
    )
    assert error_of(reply)["code"] == "invalid_encoding"


def test_an_unknown_encoding_is_415_and_told_what_is_known(gateway: Harness) -> None:
    reply = gateway.post("/v1/chat/completions", CHAT, headers={"content-encoding": "br"})
    assert error_of(reply, 415)["code"] == "unsupported_content_encoding"
    assert "gzip" in reply.text


@encodings
def test_a_body_needs_a_key_before_it_is_expanded(make_gateway, encoding: bytes) -> None:
    gateway = make_gateway(api_key=("some-key-123",))
    reply = gateway.post("/v1/chat/completions", b"no", headers={"content-encoding": "gzip"})
    assert reply.status_code == 401
