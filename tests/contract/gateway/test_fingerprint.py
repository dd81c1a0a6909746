"""Answers say which weights made them, and that random ones are random."""

import json
from typing import Any

import pytest

from moe_model.text.tokenizer import Tokenizer
from tests.support.gateway.answers import thinking_answer
from tests.support.gateway.fake_attention import say
from tests.support.gateway.harness import ready_status
from tests.support.gateway.model import EOS, NAME

DIGEST = "0123456789abcdef" * 4
CASES = [(DIGEST, "fp_0123456789ab"), (f"random-{DIGEST}", "random-0123456789ab"), ("", None)]


@pytest.mark.parametrize(("checkpoint_id", "expected"), CASES)
def test_answers_and_chunks_tell_the_weights(
    make_gateway: Any, tokenizer: Tokenizer, checkpoint_id: str, expected: str | None
) -> None:
    status = ready_status()
    status.checkpoint_id = checkpoint_id
    gateway = make_gateway(status=status)
    gateway.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
    assert gateway.chat().json().get("system_fingerprint") == expected
    plain = gateway.post("/v1/completions", {"model": NAME, "prompt": "a", "max_tokens": 4})
    assert plain.json().get("system_fingerprint") == expected
    chunks = [
        json.loads(line.removeprefix("data: "))
        for line in gateway.chat(stream=True).text.splitlines()
        if line.startswith("data: {")
    ]
    assert chunks
    assert {chunk.get("system_fingerprint") for chunk in chunks} == {expected}
    (version,) = gateway.get("/version").json()["attention"]
    assert version["checkpoint_id"] == checkpoint_id
