"""A stream whose attention service goes away continues at another, unnoticed by the client."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from moe_model.text.tokenizer import Tokenizer
from protos import attention_pb2
from tests.support.examples import examples
from tests.support.gateway.answers import thinking_answer
from tests.support.gateway.fake_attention import Item, ended, length, stopped, tokens
from tests.support.gateway.harness import Harness, ready_status
from tests.support.gateway.model import EOS

DEATHS: dict[str, Item] = {
    "lost": grpc.StatusCode.UNAVAILABLE,
    "stopping": ended(attention_pb2.FINISH_REASON_ABORTED, "stopping", retryable=True),
    "failed": ended(attention_pb2.FINISH_REASON_ERROR, "no experts", retryable=True),
}


@dataclass
class Mortal:
    """One model on all replicas. Streams end early, after as many tokens as `deaths` says."""

    ids: Sequence[int]
    deaths: list[tuple[str, int]] = field(default_factory=list)
    requests: list[attention_pb2.GenerateRequest] = field(default_factory=list)

    def __call__(self, request: attention_pb2.GenerateRequest) -> list[Item]:
        self.requests.append(request)
        done = len(request.emitted_token_ids)
        assert list(request.emitted_token_ids) == list(self.ids[:done])
        whole = list(self.ids)[: request.sampling.max_tokens]
        assert done < len(whole), "a finished sequence was asked to go on"
        rest = whole[done:]
        death = self.deaths.pop(0) if self.deaths else None
        sent = rest if death is None else rest[: death[1]]
        items: list[Item] = [tokens(done + i, [one]) for i, one in enumerate(sent)]
        if death is not None:
            return [*items, DEATHS[death[0]]]
        is_stop = whole[-1] == EOS
        return [*items, stopped(len(whole), EOS) if is_stop else length(len(whole))]


@pytest.fixture
def gateway(three_replicas: Harness) -> Harness:
    return three_replicas


def deltas_of(text: str) -> list[Any]:
    """The stream's choices without ids and times, and its usage; neighbouring texts joined."""
    joined: list[Any] = []
    for line in text.split("\n\n"):
        if line.startswith("data: {"):
            event = json.loads(line.removeprefix("data: "))
            assert "error" not in event, event
            joined.append((event["choices"], event.get("usage")))
    return joined


def text_of(deltas: list[Any]) -> dict[str, str]:
    parts: dict[str, str] = {}
    for choices, _ in deltas:
        for choice in choices:
            for key, value in choice["delta"].items():
                if isinstance(value, str):
                    parts[key] = parts.get(key, "") + value
    return parts


@examples(25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cuts=st.lists(
        st.tuples(st.sampled_from(sorted(DEATHS)), st.integers(0, 30)), min_size=1, max_size=2
    ),
    max_tokens=st.sampled_from([5, 200]),
    stop=st.sampled_from([None, "the h"]),
    stream=st.booleans(),
)
def test_wherever_it_is_cut_the_answer_is_the_undisturbed_one(
    gateway: Harness,
    tokenizer: Tokenizer,
    cuts: list[tuple[str, int]],
    max_tokens: int,
    stop: str | None,
    stream: bool,
) -> None:
    ids = [*thinking_answer(tokenizer, "hm, so", "Gruesse: \u00fc \U0001f600 from the house"), EOS]
    options: Any = {"max_tokens": max_tokens, "stop": stop, "seed": 7, "stream": stream}
    if stream:
        options |= {"stream_options": {"include_usage": True}, "logprobs": True}
    gateway.reset()
    gateway.script(Mortal(ids))
    plain = gateway.chat(**options)
    gateway.reset()
    mortal = Mortal(ids, list(cuts))
    gateway.script(mortal)
    moved = gateway.chat(**options)
    assert (plain.status_code, moved.status_code) == (200, 200)
    if stream:
        before, after = deltas_of(plain.text), deltas_of(moved.text)
        assert text_of(after) == text_of(before)
        assert after[-1] == before[-1]  # usage
        scores = [
            [
                c
                for choices, _ in d
                for one in choices
                for c in (one["logprobs"] or {"content": []})["content"]
            ]
            for d in (before, after)
        ]
        assert scores[0] == scores[1]
        assert moved.text.endswith("data: [DONE]\n\n")
    else:
        before, after = plain.json(), moved.json()
        assert after["choices"] == before["choices"]
        assert after["usage"] == before["usage"]
    for request in mortal.requests:
        assert request.sampling.seed == 7
        assert request.prompt_token_ids == mortal.requests[0].prompt_token_ids


@pytest.mark.parametrize("stream", [False, True])
def test_two_migrations_are_the_most(gateway: Harness, tokenizer: Tokenizer, stream: bool) -> None:
    before = gateway.metric("gateway_migrations_total")
    mortal = Mortal(thinking_answer(tokenizer, "hm", "hello"), [("failed", 2)] * 9)
    gateway.script(mortal)
    reply = gateway.chat(stream=stream)
    assert len(mortal.requests) == 3
    assert gateway.metric("gateway_migrations_total") == before + 2
    assert len({r.emitted_token_ids.__len__() for r in mortal.requests}) == 3
    if stream and reply.status_code == 200:
        assert reply.text.count('"error"') == 1
    else:
        assert reply.status_code == 503


def test_leaving_in_order_does_not_use_up_the_moves(gateway: Harness, tokenizer: Tokenizer) -> None:
    before = gateway.metric("gateway_migrations_total")
    deaths = [("stopping", 1), ("failed", 1), ("failed", 1)]
    gateway.script(Mortal(thinking_answer(tokenizer, "hm", "hello"), deaths))
    assert gateway.chat().json()["choices"][0]["message"]["content"] == "hello"
    assert gateway.metric("gateway_migrations_total") == before + 3


def test_a_request_that_kills_at_once_is_a_503_with_retry_after(gateway: Harness) -> None:
    mortal = Mortal([65], [("lost", 0)] * 9)
    gateway.script(mortal)
    reply = gateway.chat(stream=True)
    assert (reply.status_code, len(mortal.requests)) == (503, 3)
    assert reply.headers["retry-after"]


def test_a_lost_replica_is_not_asked_again(gateway: Harness, tokenizer: Tokenizer) -> None:
    gateway.script(Mortal(thinking_answer(tokenizer, "hm", "hello"), [("lost", 3), ("lost", 1)]))
    assert gateway.chat().status_code == 200
    assert [len(fake.requests) for fake in gateway.fakes] == [1, 1, 1]


def test_each_of_n_choices_moves_by_itself(gateway: Harness, tokenizer: Tokenizer) -> None:
    ids = [*thinking_answer(tokenizer, "hm", "hello"), EOS]
    of_choice = [Mortal(ids, [("failed", 3)]), Mortal(ids), Mortal(ids, [("failed", 1)] * 2)]
    gateway.script(lambda request: of_choice[request.choice_idx](request))
    reply = gateway.chat(n=3).json()
    assert [c["message"]["content"] for c in reply["choices"]] == ["hello"] * 3
    assert [len(mortal.requests) for mortal in of_choice] == [2, 1, 3]
    for index, mortal in enumerate(of_choice):
        assert {request.choice_idx for request in mortal.requests} == {index}
    assert reply["usage"]["completion_tokens"] == 3 * len(ids)


def test_a_full_replica_is_passed_over_without_a_migration(
    gateway: Harness, tokenizer: Tokenizer
) -> None:
    before = gateway.metric("gateway_migrations_total")
    gateway.script(Mortal([*thinking_answer(tokenizer, "hm", "hello"), EOS]))
    for fake in gateway.fakes[:2]:
        fake.script = lambda r: [grpc.StatusCode.RESOURCE_EXHAUSTED]
    assert gateway.chat().status_code == 200
    assert gateway.metric("gateway_migrations_total") == before


def test_streams_leave_a_draining_service_while_another_is_ready(
    make_gateway: Any, tokenizer: Tokenizer
) -> None:
    gateway = make_gateway(fakes=2, poll_interval_s=0.05)
    gateway.wait_for(lambda: all(r.ready for r in gateway.service.gateway.pool.replicas))
    ids = [*thinking_answer(tokenizer, "hm", "hello"), EOS]
    mortal = Mortal(ids)

    def script(request: Any) -> list[Item]:
        if request.emitted_token_ids:
            return mortal(request)
        draining = ready_status()
        draining.ready, draining.draining = False, True
        fake = gateway.fakes[0] if len(gateway.fakes[0].requests) else gateway.fakes[1]
        fake.status = draining
        return [tokens(0, ids[:3]), 30.0]

    gateway.script(script)
    assert gateway.chat().json()["choices"][0]["message"]["content"] == "hello"
    assert gateway.metric("gateway_migrations_total") == 1
    gateway.wait_for(lambda: sum(fake.cancelled for fake in gateway.fakes) == 1)


def test_streams_leave_a_service_that_answers_no_poll(
    make_gateway: Any, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.generate.replica.POLL_TIMEOUT_S", 0.1)
    gateway = make_gateway(fakes=2, poll_interval_s=0.05)
    gateway.wait_for(lambda: all(r.ready for r in gateway.service.gateway.pool.replicas))
    ids = [*thinking_answer(tokenizer, "hm", "hello"), EOS]
    mortal = Mortal(ids)

    def script(request: Any) -> list[Item]:
        if request.emitted_token_ids:
            return mortal(request)
        fake = gateway.fakes[0] if len(gateway.fakes[0].requests) else gateway.fakes[1]
        fake.status_delay_s = 30.0
        return [tokens(0, ids[:3]), 30.0]

    gateway.script(script)
    assert gateway.chat().json()["choices"][0]["message"]["content"] == "hello"
    assert gateway.metric("gateway_migrations_total") == 1


def test_a_draining_service_keeps_its_streams_when_it_is_the_only_one(
    make_gateway: Any, tokenizer: Tokenizer
) -> None:
    gateway = make_gateway(poll_interval_s=0.05)
    ids = [*thinking_answer(tokenizer, "hm", "hello"), EOS]

    def script(request: Any) -> list[Item]:
        gateway.fake.status.ready, gateway.fake.status.draining = False, True
        return [tokens(0, ids[:3]), 0.4, tokens(3, ids[3:]), stopped(len(ids), EOS)]

    gateway.script(script)
    assert gateway.chat().json()["choices"][0]["message"]["content"] == "hello"
