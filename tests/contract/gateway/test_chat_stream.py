"""Streamed and whole chat: OpenAI's own client must understand every chunk (row F4)."""

import json
from typing import Any

import httpx
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from gateway.limits import Limits
from moe_model.text.tokenizer import Tokenizer
from tests.support.gateway.answers import ends_with_done, events_of, thinking_answer
from tests.support.gateway.fake_attention import length, say, stopped, tokens
from tests.support.gateway.harness import Harness
from tests.support.gateway.model import EOS, NAME

MESSAGES: Any = [{"role": "user", "content": "hello"}]


@pytest.fixture
def answer(tokenizer: Tokenizer) -> list[int]:
    return thinking_answer(tokenizer, "hm", "hello there")


@pytest.mark.parametrize("step", [1, 3, 100])
def test_reasoning_and_content_stream_apart(gateway: Harness, answer: list[int], step: int) -> None:
    gateway.script(say(answer, eos=EOS, step=step))
    chunks = list(
        gateway.client().chat.completions.create(model=NAME, messages=MESSAGES, stream=True)
    )
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert [delta.role for delta in deltas] == ["assistant"] + [None] * (len(deltas) - 1)
    assert "".join(getattr(d, "reasoning_content", None) or "" for d in deltas) == "hm"
    assert "".join(d.content or "" for d in deltas) == "hello there"
    assert [c.choices[0].finish_reason for c in chunks if c.choices[0].finish_reason] == ["stop"]
    assert len({(c.id, c.created, c.model) for c in chunks}) == 1


def test_every_chunk_is_valid_by_openais_types(gateway: Harness, answer: list[int]) -> None:
    gateway.script(say(answer, eos=EOS))
    text = gateway.chat(
        stream=True, logprobs=True, top_logprobs=2, stream_options={"include_usage": True}
    ).text
    assert ends_with_done(text)
    for event in events_of(text):
        ChatCompletionChunk.model_validate(event, strict=True)


def test_a_whole_answer(gateway: Harness, answer: list[int]) -> None:
    gateway.script(say(answer, eos=EOS))
    reply = gateway.chat()
    assert reply.headers["content-type"] == "application/json"
    completion = ChatCompletion.model_validate(reply.json(), strict=True)
    message = completion.choices[0].message
    assert message.content == "hello there"
    assert message.reasoning_content == "hm"
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage is not None
    assert completion.usage.completion_tokens == len(answer) + 1
    details = completion.usage.completion_tokens_details
    assert details is not None
    assert details.reasoning_tokens == len("hm\n") + 1
    prompt = list(gateway.fake.requests[0].prompt_token_ids)
    assert completion.usage.prompt_tokens == len(prompt)


@pytest.mark.parametrize("name", [NAME, "MiniMax-M2"])
def test_minimaxs_own_path_has_its_defaults(gateway: Harness, answer: list[int], name: str) -> None:
    gateway.script(say(answer, eos=EOS))
    path, body = "/v1/text/chat/completions", {"model": name, "messages": MESSAGES}
    inside = gateway.post(path, body).json()["choices"][0]["message"]
    assert inside["content"] == "<think>\nhm\n</think>\n\nhello there"
    apart = gateway.post(path, {**body, "reasoning_split": True}).json()["choices"][0]["message"]
    assert (apart["content"], apart["reasoning_content"].strip()) == ("hello there", "hm")


def test_the_models_own_name_is_no_alias_elsewhere(gateway: Harness) -> None:
    assert gateway.chat(model="MiniMax-M2").status_code == 404


def test_thinking_can_stay_inside_the_content(gateway: Harness, answer: list[int]) -> None:
    gateway.script(say(answer, eos=EOS))
    message = gateway.chat(reasoning_split=False).json()["choices"][0]["message"]
    assert message == {
        "role": "assistant",
        "content": "<think>\nhm\n</think>\n\nhello there",
    }


def test_length_during_thinking_leaves_content_empty(gateway: Harness, answer: list[int]) -> None:
    gateway.script(say(answer, eos=EOS))
    choice = gateway.chat(max_tokens=2).json()["choices"][0]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["content"] == ""
    assert choice["message"]["reasoning_content"] == "hm"


def test_no_text_at_all_is_still_a_whole_stream(gateway: Harness) -> None:
    gateway.script(lambda _: [tokens(0, [EOS]), stopped(1, EOS)])
    events = events_of(gateway.chat(stream=True).text)
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert events[-1]["choices"][0]["finish_reason"] == "stop"
    assert gateway.chat().json()["choices"][0]["message"]["content"] == ""


def test_zero_tokens_generated(gateway: Harness) -> None:
    gateway.script(lambda _: [length(0)])
    choice = gateway.chat().json()["choices"][0]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("length", "")


class TestUsage:
    def test_include_usage_adds_one_last_chunk(self, gateway: Harness, answer: list[int]) -> None:
        gateway.script(
            lambda r: [tokens(0, [*answer, EOS]), stopped(len(answer) + 1, EOS, cached=3)]
        )
        text = gateway.chat(stream=True, stream_options={"include_usage": True}).text
        events = events_of(text)
        assert ends_with_done(text)
        assert all(event["usage"] is None for event in events[:-1])
        assert events[-1]["choices"] == []
        usage = events[-1]["usage"]
        assert usage["completion_tokens"] == len(answer) + 1
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
        assert usage["prompt_tokens_details"]["cached_tokens"] == 3
        assert usage["completion_tokens_details"]["reasoning_tokens"] == 4

    def test_without_it_no_chunk_has_usage(self, gateway: Harness, answer: list[int]) -> None:
        gateway.script(say(answer, eos=EOS))
        assert not [e for e in events_of(gateway.chat(stream=True).text) if "usage" in e]

    def test_continuous_usage_rises(self, gateway: Harness, answer: list[int]) -> None:
        gateway.script(say(answer, eos=EOS, pause_s=0.001))
        options = {"include_usage": True, "continuous_usage_stats": True}
        events = events_of(gateway.chat(stream=True, stream_options=options).text)
        counts = [event["usage"]["completion_tokens"] for event in events]
        assert counts == sorted(counts)
        assert counts[-1] == len(answer) + 1

    def test_stream_options_without_a_stream_are_refused(self, gateway: Harness) -> None:
        error = gateway.chat(stream_options={"include_usage": True}).json()["error"]
        assert error["param"] == "stream_options"


class TestChoices:
    def test_eight_choices_interleave_and_each_ends_once(
        self, gateway: Harness, tokenizer: Tokenizer
    ) -> None:
        def script(request: Any) -> Any:
            ids = thinking_answer(tokenizer, "t", f"answer {request.choice_idx}")
            return say(ids, eos=EOS, pause_s=0.002)(request)

        gateway.script(script)
        text = gateway.chat(stream=True, n=8, seed=7, stream_options={"include_usage": True}).text
        events = events_of(text)
        assert ends_with_done(text)
        content: dict[int, str] = {}
        finished: list[int] = []
        for event in events[:-1]:
            choice = event["choices"][0]
            index = choice["index"]
            assert index not in finished
            content[index] = content.get(index, "") + (choice["delta"].get("content") or "")
            if choice["finish_reason"]:
                finished.append(index)
        assert content == {i: f"answer {i}" for i in range(8)}
        assert sorted(finished) == list(range(8))
        roles = [
            e["choices"][0]["index"] for e in events[:-1] if "role" in e["choices"][0]["delta"]
        ]
        assert sorted(roles) == list(range(8))
        indices = [event["choices"][0]["index"] for event in events[:-1]]
        assert indices != sorted(indices), "choices were not interleaved"
        requests = gateway.fake.requests
        assert sorted(r.choice_idx for r in requests) == list(range(8))
        assert {r.sampling.seed for r in requests} == {7}
        prompt_tokens = len(requests[0].prompt_token_ids)
        assert events[-1]["usage"]["prompt_tokens"] == prompt_tokens

    def test_choices_of_a_whole_answer_are_in_order(
        self, gateway: Harness, tokenizer: Tokenizer
    ) -> None:
        def script(request: Any) -> Any:
            ids = thinking_answer(tokenizer, "t", str(request.choice_idx))
            return [(3 - request.choice_idx) * 0.02, *say(ids, eos=EOS)(request)]

        gateway.script(script)
        choices = gateway.chat(n=3).json()["choices"]
        assert [(c["index"], c["message"]["content"]) for c in choices] == [
            (0, "0"),
            (1, "1"),
            (2, "2"),
        ]


class TestStops:
    def test_a_stop_string_ends_the_answer_and_the_generation(
        self, gateway: Harness, tokenizer: Tokenizer
    ) -> None:
        ids = thinking_answer(tokenizer, "hm", "one STOP two")
        gateway.script(lambda r: [*say(ids, eos=EOS)(r)[:-1], 30.0, stopped(0)])
        reply = gateway.chat(stop=["STOP"], max_tokens=100).json()
        assert reply["choices"][0]["message"]["content"] == "one "
        assert reply["choices"][0]["finish_reason"] == "stop"
        gateway.wait_for(lambda: gateway.fake.cancelled == 1)

    @pytest.mark.parametrize("step", [1, 2, 100])
    def test_no_part_of_a_stop_string_leaks_into_a_stream(
        self, gateway: Harness, tokenizer: Tokenizer, step: int
    ) -> None:
        gateway.script(say(thinking_answer(tokenizer, "hm", "a S ST STOP b"), eos=EOS, step=step))
        events = events_of(gateway.chat(stream=True, stop="STOP").text)
        text = "".join(e["choices"][0]["delta"].get("content") or "" for e in events)
        assert text == "a S ST "
        assert events[-1]["choices"][0]["finish_reason"] == "stop"

    def test_stop_token_ids_are_passed_on_and_are_no_text(
        self, gateway: Harness, tokenizer: Tokenizer
    ) -> None:
        ids = [*thinking_answer(tokenizer, "hm", "hi"), ord("!")]
        gateway.script(lambda r: [tokens(0, ids), stopped(len(ids), ord("!"))])
        reply = gateway.chat(stop_token_ids=[ord("!")]).json()
        assert reply["choices"][0]["message"]["content"] == "hi"
        assert reply["usage"]["completion_tokens"] == len(ids)
        assert list(gateway.fake.requests[0].sampling.stop_token_ids) == [ord("!")]

    def test_ignore_eos_goes_on_and_the_eos_is_no_text(
        self, gateway: Harness, tokenizer: Tokenizer
    ) -> None:
        ids = [*thinking_answer(tokenizer, "hm", "a"), EOS, ord("b")]
        gateway.script(lambda r: [tokens(0, ids), length(len(ids))])
        reply = gateway.chat(ignore_eos=True).json()
        assert reply["choices"][0]["message"]["content"] == "ab"
        assert gateway.fake.requests[0].sampling.ignore_eos


def test_logprobs_are_one_per_token(gateway: Harness, answer: list[int]) -> None:
    gateway.script(say(answer, eos=EOS))
    whole = gateway.chat(logprobs=True, top_logprobs=2).json()["choices"][0]["logprobs"]["content"]
    assert len(whole) == len(answer)
    assert all(len(one["top_logprobs"]) == 2 for one in whole)
    assert whole[0] == {
        "token": "h",
        "logprob": -0.5,
        "bytes": [104],
        "top_logprobs": [
            {"token": "h", "logprob": -0.5, "bytes": [104]},
            {"token": "A", "logprob": -1.5, "bytes": [65]},
        ],
    }
    events = events_of(gateway.chat(stream=True, logprobs=True, top_logprobs=2).text)
    streamed = [
        one
        for event in events
        if event["choices"][0]["logprobs"]
        for one in event["choices"][0]["logprobs"]["content"]
    ]
    assert streamed == whole


def test_timings_come_when_asked_for(gateway: Harness, answer: list[int]) -> None:
    gateway.script(say(answer, eos=EOS))
    assert "expertmesh_timings" not in gateway.chat().json()
    timings = gateway.chat(expertmesh_timings=True).json()["expertmesh_timings"]
    assert {"queue_ms", "attention_ms", "network_ms", "sampling_ms", "tokenise_ms"} <= set(timings)
    assert (timings["queue_ms"], timings["total_ms"], timings["steps"]) == (1, 9, 4)
    assert timings["tokenise_ms"] > 0
    last = events_of(gateway.chat(expertmesh_timings=True, stream=True).text)[-1]
    assert last["expertmesh_timings"]["steps"] == 4
    ChatCompletionChunk.model_validate(last, strict=True)


def test_headers_come_at_once_and_comments_while_nothing_does(
    make_gateway: Any, tokenizer: Tokenizer
) -> None:
    gateway = make_gateway(limits=Limits(keepalive_s=0.1, early_error_wait_s=0.05))
    ids = thinking_answer(tokenizer, "hm", "late")
    gateway.script(lambda r: [0.6, *say(ids, eos=EOS)(r)])
    body = {"model": NAME, "messages": MESSAGES, "stream": True}
    with httpx.stream("POST", f"{gateway.base_url}/v1/chat/completions", json=body) as reply:
        assert reply.status_code == 200
        assert reply.headers["content-type"].startswith("text/event-stream")
        assert gateway.fake.tokens_sent == 0, "the headers waited for the first token"
        text = reply.read().decode()
    head, _, rest = text.partition("data: ")
    assert head.count(": keep-alive\n\n") >= 3
    assert ": keep-alive" not in rest
    assert ends_with_done(text)
    assert gateway.metric("sse_keepalives_total") >= 3
    # The official client skips comments.
    chunks = gateway.client().chat.completions.create(model=NAME, messages=MESSAGES, stream=True)
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "late"


def test_a_first_token_is_not_held_back_for_a_refusal(
    make_gateway: Any, tokenizer: Tokenizer
) -> None:
    gateway = make_gateway(limits=Limits(early_error_wait_s=1e6, keepalive_s=1e6))
    ids = thinking_answer(tokenizer, "hm", "so")
    gateway.script(lambda r: [tokens(0, ids[:1]), 1e6])
    body = {"model": NAME, "messages": MESSAGES, "stream": True}
    with httpx.stream("POST", f"{gateway.base_url}/v1/chat/completions", json=body) as reply:
        assert next(reply.iter_raw()).startswith(b"data: ")


def test_a_silent_client_waits_no_longer_for_headers_than_for_a_comment() -> None:
    limits = Limits()
    assert max(limits.early_error_wait_s, limits.grammar_error_wait_s) <= limits.keepalive_s


def test_multi_byte_characters_arrive_whole(gateway: Harness, tokenizer: Tokenizer) -> None:
    text = "汉字 🙂 é"
    gateway.script(say(thinking_answer(tokenizer, "思", text), eos=EOS))
    body = {"model": NAME, "messages": MESSAGES, "stream": True}
    with httpx.stream("POST", f"{gateway.base_url}/v1/chat/completions", json=body) as reply:
        blocks = b"".join(reply.iter_raw()).split(b"\n\n")
    contents = []
    for block in blocks:
        block.decode()  # every event is valid UTF-8 by itself
        if block.startswith(b"data: {"):
            contents.append(json.loads(block[6:])["choices"][0]["delta"].get("content") or "")
    assert "".join(contents) == text
    assert "\ufffd" not in "".join(contents)


def test_invalid_bytes_of_the_model_become_replacement_characters(gateway: Harness) -> None:
    ids = [304, 0xFF, ord("a"), 0xE6]
    gateway.script(lambda r: [*(tokens(i, [one]) for i, one in enumerate(ids)), length(4)])
    assert gateway.chat().json()["choices"][0]["message"]["content"] == "\ufffda\ufffd"


def test_the_request_says_what_the_model_and_client_want(
    gateway: Harness, answer: list[int]
) -> None:
    gateway.script(say(answer, eos=EOS))
    gateway.post(
        "/v1/chat/completions",
        {
            "model": "alias",
            "messages": MESSAGES,
            "max_completion_tokens": 50,
            "min_tokens": 2,
            "temperature": 0,
            "top_k": 5,
            "seed": 11,
            "cache_salt": "tenant",
            "logit_bias": {"65": -5},
        },
        headers={"x-request-id": "my-id-1"},
    )
    request = gateway.fake.requests[0]
    assert request.request_id == "my-id-1"
    assert request.cache_salt == "tenant"
    assert request.end_of_thinking_id == 304
    assert not request.emitted_token_ids
    sampling = request.sampling
    assert (sampling.max_tokens, sampling.min_tokens, sampling.seed) == (50, 2, 11)
    assert (sampling.temperature, sampling.top_k) == (0, 5)
    assert sampling.top_p == pytest.approx(0.95)
    assert [(b.token_id, b.bias) for b in sampling.logit_bias] == [(65, -5)]


def test_max_tokens_defaults_to_what_is_left(gateway: Harness, answer: list[int]) -> None:
    gateway.script(say(answer, eos=EOS))
    gateway.chat()
    request = gateway.fake.requests[0]
    assert request.sampling.max_tokens == 256 - len(request.prompt_token_ids)
