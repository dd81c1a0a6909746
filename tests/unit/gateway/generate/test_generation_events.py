"""What may a Generate stream do, and what is an error?"""

from collections.abc import Sequence
from typing import Any

import pytest

from gateway.errors import Kind, RequestError
from gateway.generate.stream_state import StreamLost, StreamState
from protos import attention_pb2


def state(*, max_tokens: int = 10, logprobs: bool = False) -> StreamState:
    sampling = attention_pb2.SamplingParams(max_tokens=max_tokens, logprobs=logprobs)
    request = attention_pb2.GenerateRequest(prompt_token_ids=[1, 2, 3], sampling=sampling)
    return StreamState(request=request)


def tokens(index: int, ids: Sequence[int]) -> attention_pb2.Tokens:
    return attention_pb2.Tokens(index=index, token_ids=ids)


def test_prompt_and_emitted_ids_stay_apart() -> None:
    one = state()
    one.take_tokens(tokens(0, [7]), 100)
    one.take_tokens(tokens(1, [8, 9]), 100)
    assert one.emitted_token_ids == [7, 8, 9]
    assert list(one.request.prompt_token_ids) == [1, 2, 3]
    assert (one.num_prompt_tokens, one.num_generated_tokens) == (3, 3)


@pytest.mark.parametrize(
    "event",
    [
        tokens(2, [5]),  # a gap
        tokens(0, [5]),  # a repeat
        tokens(1, []),
        tokens(1, [100]),  # outside the vocabulary
        tokens(1, list(range(10))),  # beyond max_tokens
    ],
)
def test_tokens_that_break_the_protocol_end_the_request(event: attention_pb2.Tokens) -> None:
    one = state()
    one.take_tokens(tokens(0, [1]), 100)
    with pytest.raises(RequestError) as caught:
        one.take_tokens(event, 100)
    assert caught.value.kind is Kind.BROKEN_UPSTREAM
    assert one.emitted_token_ids == [1]


def test_logprobs_must_match_the_tokens() -> None:
    with pytest.raises(RequestError):
        state(logprobs=True).take_tokens(tokens(0, [1]), 100)


@pytest.mark.parametrize(
    "fields, kind, reason",
    [
        ({"reason": attention_pb2.FINISH_REASON_DEADLINE}, Kind.TIMED_OUT, "deadline_exceeded"),
        ({"reason": attention_pb2.FINISH_REASON_ERROR}, Kind.INTERNAL, "generation_failed"),
        ({}, Kind.BROKEN_UPSTREAM, "upstream_protocol_error"),
    ],
)
def test_every_end_but_stop_and_length_is_an_error(
    fields: dict[str, Any], kind: Kind, reason: str
) -> None:
    with pytest.raises(RequestError) as caught:
        state().take_finished(attention_pb2.Finished(**fields))
    assert (caught.value.kind, caught.value.reason) == (kind, reason)


@pytest.mark.parametrize(
    "fields, reason",
    [
        ({"reason": attention_pb2.FINISH_REASON_ABORTED}, "stopping"),
        ({"reason": attention_pb2.FINISH_REASON_ERROR, "retryable": True}, "failed"),
    ],
)
def test_ends_that_another_replica_may_go_on_from(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(StreamLost) as caught:
        state().take_finished(attention_pb2.Finished(**fields))
    assert caught.value.reason == reason
    assert (caught.value.error.kind, caught.value.error.reason) == (Kind.NOT_READY, "not_ready")


def test_the_rest_is_asked_for_in_the_time_that_is_left() -> None:
    one = state()
    one.request.timeout_ms = 60_000
    one.take_tokens(tokens(0, [7, 8]), 100)
    one.received_s -= 20
    rest = one.request_to_go_on(default_timeout_s=5)
    assert 39_000 < rest.timeout_ms <= 40_000
    assert (list(rest.prompt_token_ids), list(rest.emitted_token_ids)) == ([1, 2, 3], [7, 8])
    one.request.timeout_ms = 0
    assert one.request_to_go_on(default_timeout_s=0).timeout_ms == 0
    with pytest.raises(RequestError) as caught:
        one.request_to_go_on(default_timeout_s=5)
    assert caught.value.reason == "deadline_exceeded"


def test_only_a_missing_end_is_made_up() -> None:
    one = state(max_tokens=3)
    assert one.missed_end(frozenset({9})) is None
    one.take_tokens(tokens(0, [7, 8]), 100)
    assert one.missed_end(frozenset({9})) is None
    stop = one.missed_end(frozenset({8}))
    assert stop is not None
    assert (stop.reason, stop.stop_token_id) == (attention_pb2.FINISH_REASON_STOP, 8)
    one.take_tokens(tokens(2, [7]), 100)
    end = one.missed_end(frozenset({9}))
    assert end is not None
    assert (end.reason, end.usage.generated_tokens) == (attention_pb2.FINISH_REASON_LENGTH, 3)


def test_a_lost_token_is_noticed_at_the_end() -> None:
    one = state()
    one.take_tokens(tokens(0, [1]), 100)
    finished = attention_pb2.Finished(
        reason=attention_pb2.FINISH_REASON_STOP, usage=attention_pb2.Usage(generated_tokens=2)
    )
    with pytest.raises(RequestError, match="2 tokens announced, 1 received"):
        one.take_finished(finished)
