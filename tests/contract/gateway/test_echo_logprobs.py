"""Echo with log-probabilities: lm-eval's log-likelihood requests, exactly as it sends them."""

from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import pytest

from protos import attention_pb2
from tests.support.gateway.fake_attention import length, stopped, tokens
from tests.support.gateway.harness import Harness
from tests.support.gateway.model import EOS, NAME


def score(position: int, best: int, request: Any) -> attention_pb2.TokenLogprobs:
    """The prompt's token at even positions is the likeliest one; the others lie 1 below it."""
    token_id = request.prompt_token_ids[position]
    greedy = position % 2 == 0
    return attention_pb2.TokenLogprobs(
        logprob=-0.25 * position - (not greedy),
        top_token_ids=[token_id if greedy else best][: request.sampling.top_logprobs],
        top_logprobs=[-0.25 * position][: request.sampling.top_logprobs],
    )


def scripted(request: attention_pb2.GenerateRequest, *, next_id: int = 66) -> list[Any]:
    """Prompt scores in two events, then one token."""
    scores = [score(i, 90, request) for i in range(1, len(request.prompt_token_ids))]
    cut = len(scores) // 2
    events: list[Any] = []
    for start, some in ((0, scores[:cut]), (cut, scores[cut:])):
        if some:
            event = attention_pb2.PromptLogprobs(position=start + 1, logprobs=some)
            events.append(attention_pb2.GenerateResponse(prompt_logprobs=event))
    if not request.sampling.max_tokens:
        return [*events, length(0)]
    end = stopped(1, EOS) if next_id == EOS else length(1)
    return [*events, tokens(0, [next_id]), end]


def complete(gateway: Harness, **fields: Any) -> dict[str, Any]:
    reply = gateway.post("/v1/completions", {"model": NAME, "echo": True, "logprobs": 1, **fields})
    assert reply.status_code == 200, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


def lm_evals_reading(answer: dict[str, Any], context_lengths: Sequence[int]) -> list[Any]:
    """(log-likelihood, is greedy) of each continuation, as lm-eval's completions API reads them."""
    result = []
    choices = sorted(answer["choices"], key=itemgetter("index"))
    for choice, context_length in zip(choices, context_lengths, strict=True):
        told = choice["logprobs"]
        token_logprobs = told["token_logprobs"][context_length:-1]
        tops = told["top_logprobs"][context_length:-1]
        is_greedy = all(
            one == max(top.values()) for one, top in zip(token_logprobs, tops, strict=True)
        )
        result.append((sum(token_logprobs), is_greedy))
    return result


@pytest.mark.parametrize("next_id", [66, EOS])
def test_a_batch_of_log_likelihoods(gateway: Harness, next_id: int) -> None:
    """Token-id prompts, temperature 0, max_tokens 1 and a seed; the last entry is cut off."""
    gateway.script(lambda request: scripted(request, next_id=next_id))
    answer = complete(
        gateway, prompt=[[72, 101, 108, 108], [72, 105, 33]], temperature=0, max_tokens=1, seed=1234
    )
    assert lm_evals_reading(answer, [2, 2]) == [(-0.5 - 0.75 - 1, False), (-0.5, True)]
    first = answer["choices"][0]["logprobs"]
    assert first["tokens"][:4] == ["H", "e", "l", "l"]
    assert first["text_offset"][:4] == [0, 1, 2, 3]
    assert first["token_logprobs"][0] is None
    assert first["top_logprobs"][0] is None
    assert len(first["tokens"]) == 5
    sampling = gateway.fake.requests[0].sampling
    assert (sampling.prompt_logprobs, sampling.top_logprobs, sampling.max_tokens) == (True, 1, 1)


def test_nothing_but_the_prompt(gateway: Harness) -> None:
    gateway.script(scripted)
    answer = complete(gateway, prompt="Hi!", max_tokens=0, logprobs=0)
    (choice,) = answer["choices"]
    assert choice["text"] == "Hi!"
    assert choice["finish_reason"] == "length"
    assert choice["logprobs"]["token_logprobs"] == [None, -1.25, -0.5]
    assert answer["usage"]["completion_tokens"] == 0


def test_with_openais_client_streamed_and_whole(gateway: Harness) -> None:
    gateway.script(scripted)
    create = gateway.client().completions.create
    known: Any = {
        "model": NAME,
        "prompt": "Hi!",
        "echo": True,
        "logprobs": 2,
        "max_tokens": 1,
        "n": 2,
    }
    whole = create(**known)
    chunks = [chunk.choices[0] for chunk in create(**known, stream=True)]
    for choice in whole.choices:
        told = choice.logprobs
        assert told is not None
        mine = [c for c in chunks if c.index == choice.index]
        assert "".join(c.text for c in mine) == choice.text == "Hi!B"
        streamed = [p for c in mine if c.logprobs for p in c.logprobs.token_logprobs or []]
        assert streamed == told.token_logprobs
        assert told.text_offset == [0, 1, 2, 3]


def test_minus_infinity_is_a_number_that_json_has(gateway: Harness) -> None:
    endless = attention_pb2.TokenLogprobs(logprob=float("-inf"))
    event = attention_pb2.PromptLogprobs(position=1, logprobs=[endless])
    response = attention_pb2.GenerateResponse(prompt_logprobs=event)
    gateway.script(lambda request: [response, length(0)])
    answer = complete(gateway, prompt="Hi", max_tokens=0)
    assert answer["choices"][0]["logprobs"]["token_logprobs"] == [None, -9999.0]


@pytest.mark.parametrize(
    "fields, param",
    [
        ({"max_tokens": 0, "echo": False}, "max_tokens"),
        ({"max_tokens": -2}, "max_tokens"),
        ({"logprobs": 21}, "logprobs"),
        ({"logprobs": -1}, "logprobs"),
        ({"logprobs": 10**9}, "logprobs"),
        ({"prompt_logprobs": 1}, "prompt_logprobs"),
    ],
    ids=str,
)
def test_bad_values_are_400(gateway: Harness, fields: dict[str, Any], param: str) -> None:
    body = {"model": NAME, "prompt": "x", "echo": True, "logprobs": 1, **fields}
    reply = gateway.post("/v1/completions", body)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == param


def test_too_many_are_400_before_they_are_computed(make_gateway: Any) -> None:
    from gateway.limits import Limits

    gateway = make_gateway(limits=Limits(prompt_logprobs=50))
    body = {"model": NAME, "prompt": ["x" * 9, "yyy"], "echo": True, "logprobs": 4}
    reply = gateway.post("/v1/completions", body)
    assert reply.status_code == 400
    assert "at most 50 log-probabilities, asks for 60" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    "events",
    [
        [attention_pb2.PromptLogprobs(position=2)],
        [attention_pb2.PromptLogprobs(position=0)],
        [attention_pb2.PromptLogprobs(position=1, logprobs=[attention_pb2.TokenLogprobs()] * 9)],
        [],
    ],
    ids=str,
)
def test_an_attention_service_that_tells_something_else_is_502(
    gateway: Harness, events: list[attention_pb2.PromptLogprobs]
) -> None:
    told = [attention_pb2.GenerateResponse(prompt_logprobs=event) for event in events]
    gateway.script(lambda request: [*told, tokens(0, [66]), length(1)])
    body = {"model": NAME, "prompt": "Hi!", "echo": True, "logprobs": 1, "max_tokens": 1}
    reply = gateway.post("/v1/completions", body)
    assert reply.status_code == 502
    assert "prompt logprobs" in reply.json()["error"]["message"]
