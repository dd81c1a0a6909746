"""Experts that nobody serves are waited for once, however many attention services are asked."""

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import grpc
import pytest

from moe_model.text.tokenizer import Tokenizer
from protos import attention_pb2
from tests.support.gateway.answers import thinking_answer
from tests.support.gateway.fake_attention import Item, Script, ended, stopped, tokens
from tests.support.gateway.harness import Harness, ready_status
from tests.support.gateway.model import EOS, NAME

LIMIT_MS = 600_000
"""`--expert-timeout-s` of each service. Nothing sleeps here: waits are only counted."""
FIRST_TRY_MS = LIMIT_MS // 20


class Waiting:
    """Services that fail each request once they have waited for its experts."""

    def __init__(self, *, tells: Callable[[int], bool] = lambda turn: True):
        """`tells`: whether the n-th service asked knows the field, counted from 0."""
        self._tells = tells
        self._lock = threading.Lock()
        self.waits_ms: dict[int, list[int]] = {}
        """By choice: how long each service that was asked waited."""

    def __call__(self, request: attention_pb2.GenerateRequest) -> list[Item]:
        with self._lock:
            waits_ms = self.waits_ms.setdefault(request.choice_idx, [])
            told_ms = request.experts_waited_ms if self._tells(len(waits_ms)) else 0
            waits_ms.append(max(FIRST_TRY_MS, LIMIT_MS - told_ms))
            finished = no_experts(told_ms + waits_ms[-1] if self._tells(len(waits_ms) - 1) else 0)
        return [finished]


def no_experts(waited_ms: int) -> attention_pb2.Finished:
    finished = ended(
        attention_pb2.FINISH_REASON_ERROR, "the experts are unavailable", retryable=True
    )
    finished.experts_waited_ms = waited_ms
    return finished


@pytest.fixture
def gateway(three_replicas: Harness) -> Harness:
    return three_replicas


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("path", ["chat/completions", "completions"])
def test_all_services_together_wait_little_longer_than_one(
    gateway: Harness, path: str, n: int, stream: bool
) -> None:
    waiting = Waiting()
    gateway.script(waiting)
    asked: dict[str, Any] = {"model": NAME, "stream": stream, "n": n}
    if path == "completions":
        asked["prompt"] = "hello"
    else:
        asked["messages"] = [{"role": "user", "content": "hello"}]
    reply = gateway.post(f"/v1/{path}", asked)
    assert reply.status_code == 503 or (stream and reply.text.count('"error"') == 1)
    assert waiting.waits_ms[0] == [LIMIT_MS, FIRST_TRY_MS, FIRST_TRY_MS]
    for waits_ms in waiting.waits_ms.values():
        assert sum(waits_ms) <= LIMIT_MS + 2 * FIRST_TRY_MS


def test_a_service_that_alone_has_no_experts_costs_the_request_nothing(
    gateway: Harness, tokenizer: Tokenizer
) -> None:
    ids = [*thinking_answer(tokenizer, "hm", "hello"), EOS]
    waiting = Waiting()

    def script(request: attention_pb2.GenerateRequest) -> list[Item]:
        if not waiting.waits_ms:
            return waiting(request)
        return [tokens(0, ids), stopped(len(ids), EOS)]

    gateway.script(script)
    assert gateway.chat().json()["choices"][0]["message"]["content"] == "hello"


def test_a_token_ends_the_wait_and_the_next_one_is_another(
    gateway: Harness, tokenizer: Tokenizer
) -> None:
    """Time waited in an outage that is over does not count for the next one."""
    ids = [*thinking_answer(tokenizer, "hm", "hello"), EOS]
    told: list[int] = []
    ends: list[list[Item]] = [
        [tokens(0, ids[:2]), no_experts(LIMIT_MS)],
        [tokens(2, ids[2:3]), no_experts(7)],
        [tokens(3, ids[3:]), stopped(len(ids), EOS)],
    ]

    def script(request: attention_pb2.GenerateRequest) -> list[Item]:
        told.append(request.experts_waited_ms)
        return ends[len(told) - 1]

    gateway.script(script)
    assert gateway.chat().json()["choices"][0]["message"]["content"] == "hello"
    assert told == [0, LIMIT_MS, 7]


@pytest.mark.parametrize("old", range(3))
def test_a_service_of_an_older_version_does_not_make_it_forgotten(
    gateway: Harness, old: int
) -> None:
    """It waits in full, as it always did; the others still count what was waited."""
    waiting = Waiting(tells=lambda turn: turn != old)
    gateway.script(waiting)
    assert gateway.chat().status_code == 503
    assert len(waiting.waits_ms[0]) == 3
    assert sum(waiting.waits_ms[0]) <= 2 * LIMIT_MS + FIRST_TRY_MS


def test_what_a_service_claims_cannot_break_a_request(
    gateway: Harness, tokenizer: Tokenizer
) -> None:
    ids = [*thinking_answer(tokenizer, "hm", "hello"), EOS]
    answers: list[list[Item]] = [
        [no_experts(2**64 - 1)],
        [tokens(0, ids), stopped(len(ids), EOS)],
    ]
    gateway.script(lambda request: answers.pop(0))
    assert gateway.chat().status_code == 200


@pytest.mark.parametrize("end", ["draining", "lost"])
@pytest.mark.parametrize("awaited_ms", [0, LIMIT_MS])
def test_a_service_that_goes_in_the_middle_of_its_wait_takes_it_along(
    make_gateway: Any, tokenizer: Tokenizer, end: str, awaited_ms: int
) -> None:
    """It sends no final event, but had reported its wait: rolling restarts do not extend it."""
    gateway = make_gateway(fakes=2, poll_interval_s=0.02)
    gateway.wait_for(lambda: all(r.ready for r in gateway.service.gateway.pool.replicas))
    ids = [*thinking_answer(tokenizer, "hm", "hello"), EOS]
    told: list[int] = []

    def going(fake: Any) -> Script:
        def first(status: attention_pb2.GetStatusResponse) -> Iterator[Item]:
            yield tokens(0, ids[:3])
            status.ready, status.experts_awaited_ms = False, awaited_ms
            fake.status = status
            polls = fake.polls
            while fake.polls < polls + 3:  # the gateway has heard of it
                yield 0.02
            if end == "lost":
                yield grpc.StatusCode.UNAVAILABLE
            status.draining = True
            yield 30.0

        def script(request: attention_pb2.GenerateRequest) -> Iterable[Item]:
            told.append(request.experts_waited_ms)
            if len(told) == 1:
                return first(ready_status())
            return [tokens(3, ids[3:]), stopped(len(ids), EOS)]

        return script

    for fake in gateway.fakes:
        fake.script = going(fake)
    assert gateway.chat().json()["choices"][0]["message"]["content"] == "hello"
    assert told[0] == 0
    assert (told[1] > 0) == (awaited_ms > 0)
    assert told[1] < LIMIT_MS, "no longer than since its last token"
