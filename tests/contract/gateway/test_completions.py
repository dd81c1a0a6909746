"""Text completions: four forms of prompt, echo, log-probabilities (rows C7, C9, C12)."""

from typing import Any

import pytest
from openai.types import Completion

from moe_model.text.tokenizer import Tokenizer
from tests.support.gateway.answers import ends_with_done, events_of
from tests.support.gateway.fake_attention import length, say, tokens
from tests.support.gateway.harness import Harness
from tests.support.gateway.model import CONTEXT, EOS, HOLE, NAME, THINK, VOCAB_SIZE


def ids_of(text: str) -> list[int]:
    """Single-byte tokens."""
    return list(text.encode())


def complete(gateway: Harness, **fields: Any) -> Any:
    fields = {"model": NAME, "prompt": "a", **fields}
    return gateway.post("/v1/completions", fields)


def test_openais_client_reads_whole_and_streamed(gateway: Harness) -> None:
    gateway.script(say(ids_of("some text"), eos=EOS))
    client = gateway.client()
    whole = client.completions.create(model=NAME, prompt="hello")
    assert (whole.choices[0].text, whole.choices[0].finish_reason) == ("some text", "stop")
    assert whole.object == "text_completion"
    chunks = list(client.completions.create(model=NAME, prompt="hello", stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == "some text"
    assert [c.choices[0].finish_reason for c in chunks if c.choices[0].finish_reason] == ["stop"]


def test_no_template_and_no_parser(gateway: Harness) -> None:
    gateway.script(say(ids_of("<think>x</think>y<minimax:tool_call>"), eos=EOS))
    assert complete(gateway).json()["choices"][0]["text"] == "<think>x</think>y<minimax:tool_call>"
    assert list(gateway.fake.requests[0].prompt_token_ids) == [97]
    assert gateway.fake.requests[0].end_of_thinking_id == 0


@pytest.mark.parametrize(
    "prompt, expected",
    [
        ("ab", [[97, 98]]),
        (["a", "b"], [[97], [98]]),
        ([97, 98], [[97, 98]]),
        ([[97], [98, 99]], [[97], [98, 99]]),
        (["a", [98]], [[97], [98]]),
        ([THINK], [[THINK]]),
    ],
)
def test_forms_of_prompt(gateway: Harness, prompt: Any, expected: list[list[int]]) -> None:
    gateway.script(say(ids_of("x"), eos=EOS))
    reply = complete(gateway, prompt=prompt)
    assert reply.status_code == 200, reply.text
    assert len(reply.json()["choices"]) == len(expected)
    sent = sorted(list(request.prompt_token_ids) for request in gateway.fake.requests)
    assert sent == sorted(expected)
    assert reply.json()["usage"]["prompt_tokens"] == sum(map(len, sent))


def test_markers_in_a_text_prompt_stay_text(gateway: Harness, tokenizer: Tokenizer) -> None:
    gateway.script(say(ids_of("x"), eos=EOS))
    complete(gateway, prompt="<think>")
    sent = list(gateway.fake.requests[0].prompt_token_ids)
    assert THINK not in sent
    assert tokenizer.decode(sent) == "<think>"


@pytest.mark.parametrize(
    "prompt, param",
    [
        ([], "prompt"),
        ("", "prompt"),
        ([""], "prompt[0]"),
        ([[]], "prompt[0]"),
        ([-1], "prompt[0]"),
        ([97, VOCAB_SIZE], "prompt[1]"),
        ([2**31], "prompt[0]"),
        ([HOLE], "prompt[0]"),
        ([319], "prompt[0]"),
        ([97, 1.0], "prompt[1]"),
        ([97, True], "prompt[1]"),
        ([97, "a"], "prompt[1]"),
        (["a", 97], "prompt[1]"),
        ([[97], [HOLE]], "prompt[1][0]"),
        ({"a": 1}, "prompt"),
        (5, "prompt"),
        (True, "prompt"),
        (None, "prompt"),
        ([None], "prompt[0]"),
        (["a"] * 129, "prompt"),
        ([97] * CONTEXT, "prompt"),
        (["a", "b" * CONTEXT], "prompt[1]"),
    ],
)
def test_bad_prompts_are_refused_by_name(gateway: Harness, prompt: Any, param: str) -> None:
    reply = complete(gateway, prompt=prompt)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == param


def test_a_missing_prompt_is_named(gateway: Harness) -> None:
    error = gateway.post("/v1/completions", {"model": NAME}).json()["error"]
    assert (error["param"], error["code"]) == ("prompt", "missing_required_parameter")


def test_prompts_times_n_are_numbered_by_prompt(gateway: Harness) -> None:
    def script(request: Any) -> Any:
        return say([*request.prompt_token_ids, 48 + request.choice_idx], eos=EOS)(request)

    gateway.script(script)
    choices = complete(gateway, prompt=["a", "b"], n=2).json()["choices"]
    assert [(c["index"], c["text"]) for c in choices] == [
        (0, "a0"),
        (1, "a1"),
        (2, "b0"),
        (3, "b1"),
    ]


def test_more_streams_than_allowed_are_refused_before_any_is_opened(gateway: Harness) -> None:
    error = complete(gateway, prompt=["a"] * 100, n=8).json()["error"]
    assert error["param"] == "prompt"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("prompt, text", [("ab", "abxy"), ([97, 98], "abxy")])
def test_echo_repeats_the_prompt(gateway: Harness, stream: bool, prompt: Any, text: str) -> None:
    gateway.script(say(ids_of("xy"), eos=EOS))
    reply = complete(gateway, prompt=prompt, echo=True, stream=stream)
    if stream:
        assert ends_with_done(reply.text)
        assert "".join(e["choices"][0]["text"] for e in events_of(reply.text)) == text
    else:
        assert reply.json()["choices"][0]["text"] == text


def test_logprobs_are_parallel_lists(gateway: Harness) -> None:
    gateway.script(say(ids_of("xyz"), eos=EOS))
    reply = complete(gateway, logprobs=2)
    completion = Completion.model_validate(reply.json(), strict=True)
    logprobs = completion.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.tokens == ["x", "y", "z"]
    assert logprobs.token_logprobs == [-0.5] * 3
    assert logprobs.text_offset == [0, 1, 2]
    assert logprobs.top_logprobs is not None
    assert logprobs.top_logprobs[0] == {"x": -0.5, "A": -1.5}


def test_stop_strings_cut_text(gateway: Harness) -> None:
    gateway.script(say(ids_of("one\ntwo"), eos=EOS))
    reply = complete(gateway, stop="\n").json()["choices"][0]
    assert (reply["text"], reply["finish_reason"]) == ("one", "stop")


def test_stream_chunks_are_valid_by_openais_types(gateway: Harness) -> None:
    gateway.script(say(ids_of("xyz"), eos=EOS))
    text = complete(gateway, stream=True, logprobs=1, stream_options={"include_usage": True}).text
    for event in events_of(text):
        # OpenAI's own chunks have null until the last one, which its type does not say.
        for choice in event["choices"]:
            assert choice["finish_reason"] in (None, "stop")
            choice["finish_reason"] = "stop"
        Completion.model_validate(event, strict=True)
    assert events_of(text)[-1]["usage"]["completion_tokens"] == 4


def test_each_prompt_has_its_own_room(gateway: Harness) -> None:
    gateway.script(lambda r: [tokens(0, [65]), length(1)])
    complete(gateway, prompt=["a", "a" * 100])
    rooms = sorted(request.sampling.max_tokens for request in gateway.fake.requests)
    assert rooms == [CONTEXT - 100, CONTEXT - 1]


@pytest.mark.parametrize("fields", [{"suffix": "x"}, {"best_of": 3}, {"prompt_logprobs": 1}])
def test_fields_of_other_engines_are_refused_by_name(gateway: Harness, fields: Any) -> None:
    assert complete(gateway, **fields).json()["error"]["param"] == next(iter(fields))


@pytest.mark.parametrize(
    "fields, emitted, stop_reason",
    [
        ({}, [*ids_of("ab-c"), EOS], None),
        ({"stop": "b-"}, ids_of("ab-"), "b-"),
        ({"stop_token_ids": [EOS]}, [*ids_of("ab-c"), EOS], EOS),
        ({"max_tokens": 3, "stop_token_ids": [0]}, ids_of("ab-"), None),
    ],
)
def test_token_ids_and_the_reason_to_stop(
    gateway: Harness, fields: dict[str, Any], emitted: list[int], stop_reason: Any
) -> None:
    gateway.script(say(ids_of("ab-c"), eos=EOS, step=2))
    whole = complete(gateway, return_token_ids=True, **fields).json()["choices"][0]
    assert (whole["token_ids"], whole["stop_reason"]) == (emitted, stop_reason)
    chunks = events_of(complete(gateway, return_token_ids=True, stream=True, **fields).text)
    streamed = [chunk["choices"][0] for chunk in chunks]
    assert [i for choice in streamed for i in choice["token_ids"]] == emitted
    assert streamed[-1]["stop_reason"] == stop_reason


def test_logprobs_can_name_tokens_by_id(gateway: Harness) -> None:
    gateway.script(say([195, 188], eos=EOS))
    reply = complete(gateway, logprobs=1, return_tokens_as_token_ids=True).json()
    assert reply["choices"][0]["logprobs"]["tokens"] == ["token_id:195", "token_id:188"]
    assert [list(top) for top in reply["choices"][0]["logprobs"]["top_logprobs"]] == [
        ["token_id:195"],
        ["token_id:188"],
    ]
