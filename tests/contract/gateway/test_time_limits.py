"""A request's time limit: what was generated is kept; only an answer without a token is a 504."""

import asyncio
import threading
from typing import Any

import httpx
import pytest

from expertmesh.clients import chat as chat_client
from expertmesh.clients.chat import ChatClient, Reply
from gateway.limits import Limits
from moe_model.text.tokenizer import Tokenizer
from protos import attention_pb2
from tests.support.gateway.answers import ends_with_done, events_of, thinking_answer
from tests.support.gateway.fake_attention import ended, say, tokens
from tests.support.gateway.harness import Harness
from tests.support.gateway.model import EOS, NAME

LATE = ended(attention_pb2.FINISH_REASON_DEADLINE, "the request's time limit passed")


@pytest.fixture
def cut(tokenizer: Tokenizer) -> Any:
    """Five tokens, and then the limit."""
    ids = thinking_answer(tokenizer, "", "so")
    return lambda r: [0.15, tokens(0, ids[:5]), LATE]


def test_a_whole_answer_keeps_what_there_is(gateway: Harness, cut: Any) -> None:
    gateway.script(cut)
    reply = gateway.chat()
    assert reply.status_code == 200
    (choice,) = reply.json()["choices"]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["content"] == "s"
    assert reply.json()["usage"]["completion_tokens"] == 5


def test_a_stream_ends_with_a_finish_reason_and_done(gateway: Harness, cut: Any) -> None:
    gateway.script(cut)
    reply = gateway.chat(stream=True)
    events = events_of(reply.text)
    assert not [event for event in events if "error" in event]
    assert [e["choices"][0]["finish_reason"] for e in events if e["choices"]][-1] == "length"
    assert ends_with_done(reply.text)


@pytest.mark.parametrize("stream", [False, True])
def test_completions_keep_what_there_is(gateway: Harness, cut: Any, stream: bool) -> None:
    gateway.script(cut)
    body = {"model": NAME, "prompt": "hi", "max_tokens": 9, "stream": stream}
    reply = gateway.post("/v1/completions", body)
    last = events_of(reply.text)[-1] if stream else reply.json()
    assert last["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_without_a_token_is_a_504(gateway: Harness, stream: bool) -> None:
    gateway.script(lambda r: [LATE])
    reply = gateway.chat(stream=stream)
    assert reply.status_code == 504
    assert reply.json()["error"]["code"] == "deadline_exceeded"


def test_a_choice_without_a_token_does_not_take_the_others_away(
    gateway: Harness, tokenizer: Tokenizer
) -> None:
    ids = thinking_answer(tokenizer, "", "so")
    gateway.script(lambda r: [0.3, LATE] if r.choice_idx else [tokens(0, ids[:5]), 0.4, LATE])
    choices = gateway.chat(n=2).json()["choices"]
    assert [choice["finish_reason"] for choice in choices] == ["length", "length"]
    assert [choice["message"]["content"] or "" for choice in choices] == ["s", ""]


def test_a_stream_that_must_move_after_its_limit_keeps_what_it_has(
    make_gateway: Any, tokenizer: Tokenizer
) -> None:
    gateway = make_gateway(fakes=2, request_timeout_s=1.5)
    ids = thinking_answer(tokenizer, "", "so")
    failed = ended(attention_pb2.FINISH_REASON_ERROR, "a pool died", retryable=True)
    gateway.script(lambda r: [tokens(0, ids[:5]), 1.6, failed])
    reply = gateway.chat()
    assert reply.status_code == 200
    assert reply.json()["choices"][0]["finish_reason"] == "length"


def test_the_limit_counts_from_the_receipt_of_the_request(
    make_gateway: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = make_gateway(request_timeout_s=50.0)
    gateway.script(say([65], eos=EOS))
    encoder = gateway.service.gateway.encoder
    encode = encoder.chat

    async def slow(*args: Any, **fields: Any) -> Any:
        await asyncio.sleep(1.5)
        return await encode(*args, **fields)

    monkeypatch.setattr(encoder, "chat", slow)
    assert gateway.chat().status_code == 200
    assert 0 < gateway.fake.requests[-1].timeout_ms <= 48_500


def test_no_limit_is_set_by_default(gateway: Harness) -> None:
    gateway.script(say([65], eos=EOS))
    assert gateway.chat().status_code == 200
    assert gateway.fake.requests[-1].timeout_ms == 0


def test_a_first_token_that_takes_180_keep_alives_still_reaches_our_own_client(
    make_gateway: Any, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half an hour of keep-alive comments, at a faster pace: clients limit silence only."""
    limits = Limits(keepalive_s=0.01, early_error_wait_s=0.01)
    gateway = make_gateway(limits=limits)
    go_on = threading.Event()
    answer = thinking_answer(tokenizer, "", "so")
    pauses = iter(lambda: 0.0 if go_on.is_set() else 0.05, 0.0)  # bounded by the test's own timeout
    gateway.script(lambda r: _waiting(pauses, say(answer, eos=EOS)(r)))
    monkeypatch.setattr(chat_client, "SILENCE_TIMEOUT_S", 1.0)
    client, reply = ChatClient(gateway.base_url), Reply()
    threading.Thread(
        target=lambda: (gateway.wait_for(lambda: _keepalives(gateway) >= 180, 90.0), go_on.set())
    ).start()
    pieces = list(
        client.stream({"model": NAME, "messages": [{"role": "user", "content": "x"}]}, reply)
    )
    client.close()
    assert "".join(piece.text for piece in pieces) == "so"
    assert _keepalives(gateway) >= 180


def _waiting(pauses: Any, items: Any) -> Any:
    yield from pauses
    yield from items


def _keepalives(gateway: Harness) -> float:
    return gateway.metric("sse_keepalives_total")


def test_a_client_that_leaves_is_cancelled_without_any_limit(gateway: Harness) -> None:
    gateway.script(lambda r: [30.0])
    body = {"model": NAME, "messages": [{"role": "user", "content": "x"}]}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{gateway.base_url}/v1/chat/completions", json=body, timeout=0.3)
    gateway.wait_for(lambda: gateway.fake.cancelled == 1)


@pytest.mark.parametrize("stream", [False, True])
def test_a_grammar_over_its_limits_in_use_is_the_clients_error(
    gateway: Harness, stream: bool
) -> None:
    over = ended(attention_pb2.FINISH_REASON_ERROR, "the grammar took more than its limits allow")
    over.caller_error = True
    gateway.script(lambda r: [over])
    reply = gateway.chat(stream=stream, response_format={"type": "json_object"})
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "response_format"
