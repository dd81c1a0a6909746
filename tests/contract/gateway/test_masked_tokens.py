"""`bad_words` and `allowed_token_ids` over HTTP: what reaches the attention service."""

from typing import Any

import pytest

from moe_model.text.tokenizer import Tokenizer
from tests.support.gateway.fake_attention import say
from tests.support.gateway.harness import Harness
from tests.support.gateway.model import EOS, NAME

HELLO = list(b"hello")


def ask(gateway: Harness, path: str, **fields: Any) -> Any:
    prompt = (
        {"messages": [{"role": "user", "content": "hi"}]} if "chat" in path else {"prompt": "a"}
    )
    gateway.script(say(HELLO, eos=EOS))
    return gateway.post(path, {"model": NAME, **prompt, **fields})


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_bad_words_go_as_token_ids_with_and_without_a_space(
    gateway: Harness, tokenizer: Tokenizer, path: str
) -> None:
    reply = ask(gateway, path, bad_words=["hello", " bad"], allowed_token_ids=[104, 105])
    assert reply.status_code == 200
    sampling = gateway.fake.requests[-1].sampling
    banned = [list(one.token_ids) for one in sampling.banned_sequences]
    assert banned == [tokenizer.encode_text(text) for text in ("hello", " hello", " bad")]
    assert sampling.allowed_token_ids == [104, 105]


def test_none_mean_nothing(gateway: Harness) -> None:
    for empty in (None, []):
        ask(gateway, "/v1/completions", bad_words=empty, allowed_token_ids=empty)
        sampling = gateway.fake.requests[-1].sampling
        assert not sampling.banned_sequences
        assert not sampling.allowed_token_ids


@pytest.mark.parametrize(
    "fields, param",
    [
        ({"bad_words": ["fine", ""]}, "bad_words[1]"),
        ({"bad_words": ["\ud800"]}, "bad_words[0]"),
        ({"bad_words": "word"}, "bad_words"),
        ({"allowed_token_ids": [320]}, "allowed_token_ids[0]"),
    ],
)
def test_wrong_ones_are_refused_by_name(gateway: Harness, fields: Any, param: str) -> None:
    reply = ask(gateway, "/v1/chat/completions", **fields)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == param
