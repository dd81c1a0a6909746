"""What may a Generate stream do, and what is an error?"""

from collections.abc import Sequence
from typing import Any

import pytest

from gateway.errors import ApiError
from gateway.generation import StreamState, _take_finished, _take_tokens
from protos import attention_pb2


def state(*, max_tokens: int = 10, logprobs: bool = False) -> StreamState:
    sampling = attention_pb2.SamplingParams(max_tokens=max_tokens, logprobs=logprobs)
    request = attention_pb2.GenerateRequest(prompt_token_ids=[1, 2, 3], sampling=sampling)
    return StreamState(request=request)


def tokens(index: int, ids: Sequence[int]) -> attention_pb2.Tokens:
    return attention_pb2.Tokens(index=index, token_ids=ids)


def test_prompt_and_emitted_ids_stay_apart() -> None:
    one = state()
    _take_tokens(one, tokens(0, [7]), 100)
    _take_tokens(one, tokens(1, [8, 9]), 100)
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
    _take_tokens(one, tokens(0, [1]), 100)
    with pytest.raises(ApiError) as caught:
        _take_tokens(one, event, 100)
    assert caught.value.status == 502
    assert one.emitted_token_ids == [1]


def test_logprobs_must_match_the_tokens() -> None:
    with pytest.raises(ApiError):
        _take_tokens(state(logprobs=True), tokens(0, [1]), 100)


@pytest.mark.parametrize(
    "fields, status, code",
    [
        ({"reason": attention_pb2.FINISH_REASON_DEADLINE}, 504, "deadline_exceeded"),
        ({"reason": attention_pb2.FINISH_REASON_ABORTED}, 503, "not_ready"),
        ({"reason": attention_pb2.FINISH_REASON_ERROR}, 500, "generation_failed"),
        ({"reason": attention_pb2.FINISH_REASON_ERROR, "retryable": True}, 503, "not_ready"),
        ({}, 502, "upstream_protocol_error"),
    ],
)
def test_every_end_but_stop_and_length_is_an_error(
    fields: dict[str, Any], status: int, code: str
) -> None:
    with pytest.raises(ApiError) as caught:
        _take_finished(state(), attention_pb2.Finished(**fields))
    assert (caught.value.status, caught.value.code) == (status, code)


def test_a_lost_token_is_noticed_at_the_end() -> None:
    one = state()
    _take_tokens(one, tokens(0, [1]), 100)
    finished = attention_pb2.Finished(
        reason=attention_pb2.FINISH_REASON_STOP, usage=attention_pb2.Usage(generated_tokens=2)
    )
    with pytest.raises(ApiError, match="2 tokens announced, 1 received"):
        _take_finished(one, finished)
