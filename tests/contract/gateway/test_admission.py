"""The gateway refuses requests that would wait too long by the attention service's load report."""

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from gateway.generate.replica import Replica
from gateway.limits import Limits
from moe_model.text.tokenizer import Tokenizer
from protos import attention_pb2
from tests.support.gateway.answers import thinking_answer
from tests.support.gateway.fake_attention import say, tokens
from tests.support.gateway.harness import Harness, ready_status
from tests.support.gateway.leaving_client import send
from tests.support.gateway.model import EOS, NAME

USER: Any = [{"role": "user", "content": "hello"}]


def report(**load: int) -> attention_pb2.GetStatusResponse:
    status = ready_status()
    for name, value in load.items():
        setattr(status, name, value)
    return status


def full(sequences: int = 4) -> attention_pb2.GetStatusResponse:
    return report(waiting_sequences=sequences, max_waiting_sequences=sequences)


def retry_after(reply: Any) -> int:
    seconds = int(reply.headers["retry-after"])
    assert 1 <= seconds <= 60
    return seconds


@contextlib.contextmanager
def held(gateway: Harness, count: int) -> Iterator[None]:
    """This many more requests wait at the attention service."""
    before = sum(fake.running for fake in gateway.fakes)
    connections: list[socket.socket] = [send(gateway) for _ in range(count)]
    gateway.wait_for(lambda: sum(fake.running for fake in gateway.fakes) == before + count)
    yield
    for connection in connections:
        connection.close()
    gateway.wait_for(lambda: sum(fake.running for fake in gateway.fakes) == before)


@pytest.mark.parametrize("stream", [False, True])
def test_a_full_queue_is_429_and_nothing_is_sent(make_gateway: Any, stream: bool) -> None:
    gateway = make_gateway(status=full())
    with pytest.raises(openai.RateLimitError) as refused:
        gateway.client().chat.completions.create(model=NAME, messages=USER, stream=stream)
    assert refused.value.code == "overloaded"
    assert refused.value.type == "rate_limit_error"
    retry_after(refused.value.response)
    assert not gateway.fake.requests
    assert gateway.metric("requests_total") == 1


def test_queued_prompt_tokens_are_bounded_too(make_gateway: Any, tokenizer: Tokenizer) -> None:
    gateway = make_gateway(
        status=report(waiting_sequences=1, waiting_prompt_tokens=90, max_waiting_prompt_tokens=100)
    )
    gateway.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
    body = {"model": NAME, "max_tokens": 20}
    assert gateway.post("/v1/completions", {**body, "prompt": [65] * 10}).status_code == 200
    reply = gateway.post("/v1/completions", {**body, "prompt": [65] * 11})
    assert reply.status_code == 429
    retry_after(reply)


def test_an_empty_queue_takes_a_prompt_of_any_length(
    make_gateway: Any, tokenizer: Tokenizer
) -> None:
    gateway = make_gateway(status=report(max_waiting_prompt_tokens=10, max_waiting_sequences=1))
    gateway.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
    body = {"model": NAME, "prompt": [65] * 100, "max_tokens": 20}
    assert gateway.post("/v1/completions", body).status_code == 200


def test_between_two_reports_the_gateway_counts_what_it_sent(make_gateway: Any) -> None:
    gateway = make_gateway(status=report(max_waiting_sequences=3), poll_interval_s=60)
    gateway.script(lambda r: [60.0])
    with held(gateway, 3):
        assert gateway.chat().status_code == 429
        assert len(gateway.fake.requests) == 3
    gateway.script(lambda r: [tokens(0, [65]), 60.0])
    replica = gateway.service.gateway.pool.replicas[0]
    with contextlib.ExitStack() as stack:
        for _ in range(5):  # requests that have started no longer count as waiting
            stack.enter_context(held(gateway, 1))
            gateway.wait_for(lambda: replica._queue.inside == 0)


def test_a_full_replica_is_passed_over(make_gateway: Any, tokenizer: Tokenizer) -> None:
    gateway = make_gateway(fakes=2, poll_interval_s=0.05)
    gateway.fakes[0].status = full()
    gateway.fakes[1].status = report(running_sequences=50, max_waiting_sequences=4)
    replicas = gateway.service.gateway.pool.replicas
    gateway.wait_for(lambda: sorted(r.load for r in replicas if r.ready) == [4, 50])
    gateway.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
    for _ in range(3):
        assert gateway.chat().status_code == 200
    assert [len(fake.requests) for fake in gateway.fakes] == [0, 3]


def test_room_is_seen_with_the_next_report(make_gateway: Any, tokenizer: Tokenizer) -> None:
    gateway = make_gateway(status=full(), poll_interval_s=0.05)
    gateway.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
    assert gateway.chat().status_code == 429
    gateway.fake.status.waiting_sequences = 3
    gateway.wait_for(lambda: gateway.chat().status_code == 200)


def test_a_client_with_too_many_requests_is_told_when_a_place_gets_free(
    make_gateway: Any,
) -> None:
    gateway = make_gateway(limits=Limits(concurrent_per_key=2))
    gateway.script(lambda r: [60.0])
    with held(gateway, 2):
        with pytest.raises(openai.RateLimitError, match="max-concurrent") as refused:
            gateway.client().chat.completions.create(model=NAME, messages=USER)
        retry_after(refused.value.response)


def test_nothing_ready_is_503_and_asks_for_more_patience_the_longer_it_lasts(
    make_gateway: Any,
) -> None:
    gateway = make_gateway(poll_interval_s=0.05)
    gateway.fake.status = attention_pb2.GetStatusResponse(ready=False, not_ready_reason="loading")
    gateway.wait_for(lambda: gateway.get("/readyz").status_code == 503)
    reply = gateway.chat()
    assert reply.status_code == 503
    assert retry_after(reply) <= 10
    gateway.service.gateway.pool._last_ready_s -= 20
    assert 20 <= retry_after(gateway.chat()) <= 30


def test_a_stream_counts_as_waiting_until_it_has_started(make_gateway: Any) -> None:
    gateway = make_gateway()
    replica: Replica = gateway.service.gateway.pool.replicas[0]
    with replica.lease(10) as started:
        assert (replica.load, replica._ours.unstarted, replica._ours.unstarted_tokens) == (1, 1, 10)
        started()
        started()
        assert (replica.load, replica._ours.unstarted, replica._ours.unstarted_tokens) == (1, 0, 0)
    assert (replica.load, replica._queue.inside) == (0, 0)
