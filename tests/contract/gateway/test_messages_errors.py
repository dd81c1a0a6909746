"""Anthropic's Messages API over HTTP: what is refused, left out or failed, and in which words."""

from typing import Any

import grpc
import pytest

from moe_model.text.tokenizer import Tokenizer
from protos import attention_pb2
from tests.support.gateway.answers import thinking_answer
from tests.support.gateway.fake_attention import ended, say, tokens
from tests.support.gateway.harness import Harness
from tests.support.gateway.messages import (
    USER,
    WEATHER,
    ask,
    events,
    prompt_of,
)
from tests.support.gateway.model import EOS, NAME, ROOMY_CONTEXT


@pytest.fixture
def gateway(roomy_gateway: Harness) -> Harness:
    return roomy_gateway


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"max_tokens": None}, 400, "max_tokens: this field is required"),
        ({"max_tokens": 0}, 400, "max_tokens: must be at least 1"),
        ({"model": "other"}, 404, "does not exist"),
        ({"messages": []}, 400, "messages: must not be empty"),
        ({"messages": [], "system": "x"}, 400, "messages: must not be empty"),
        ({"messages": [{"role": "robot", "content": "x"}]}, 400, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, 400, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": 5}]}, 400, "messages[0].content"),
        ({"system": [{"type": "image"}]}, 400, "system[0]"),
        ({"system": 5}, 400, "system"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, 400, "tools[0].type"),
        ({"tools": [{"name": "f"}]}, 400, "tools[0].input_schema"),
        ({"tools": [{"name": "a b", "input_schema": {}}]}, 400, "tools[0].name"),
        ({"tools": [{"name": "f", "input_schema": 5}]}, 400, "tools[0].input_schema"),
        ({"tools": [WEATHER, WEATHER]}, 400, "tools[1].name"),
        ({"tool_choice": {"type": "any"}}, 400, "tool_choice"),
        ({"tool_choice": {"type": "tool", "name": "f"}}, 400, "tool_choice.name"),
        ({"tool_choice": "auto"}, 400, "tool_choice"),
        ({"thinking": {"type": "sometimes"}}, 400, "thinking.type"),
        ({"temperature": 9}, 400, "temperature"),
        ({"stop_sequences": [""]}, 400, "stop_sequences[0]"),
        ({"output_config": {"format": {"type": "yaml"}}}, 400, "output_config.format"),
        ({"mcp_servers": [{"url": "x"}]}, 400, "mcp_servers"),
    ],
)  # fmt: skip
def test_errors_name_the_field_in_anthropics_shape(
    gateway: Harness, fields: dict[str, Any], status: int, words: str
) -> None:
    reply = ask(gateway, **fields)
    told = reply.json()
    assert (reply.status_code, told["type"]) == (status, "error")
    assert told["request_id"] == reply.headers["request-id"]
    assert words in told["error"]["message"]
    kind = "not_found_error" if status == 404 else "invalid_request_error"
    assert told["error"]["type"] == kind


@pytest.mark.parametrize("text", ["x " * (ROOMY_CONTEXT // 2), "x" * ROOMY_CONTEXT * 40])
def test_a_prompt_that_is_too_long_is_told_as_agents_read_it(gateway: Harness, text: str) -> None:
    reply = ask(gateway, messages=[{"role": "user", "content": text}])
    message = reply.json()["error"]["message"]
    assert reply.status_code == 400
    start, _, numbers = message.partition(": ")
    assert start == "prompt is too long"
    count, most = numbers.removesuffix(" maximum").split(" tokens > ")
    assert int(count) >= int(most) == ROOMY_CONTEXT


def test_pictures_of_the_past_and_of_tools_are_left_out_with_a_word(
    gateway: Harness, tokenizer: Tokenizer
) -> None:
    gateway.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
    call = {"type": "tool_use", "id": "a", "name": "Read", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "a", "content": [IMAGE]}
    reply = ask(
        gateway,
        messages=[
            {"role": "user", "content": [IMAGE]},
            {"role": "assistant", "content": [call]},
            {"role": "user", "content": [result]},
        ],
    )
    assert reply.status_code == 200
    assert prompt_of(gateway, tokenizer).count("[image: left out") == 2


def test_a_picture_that_was_refused_does_not_stop_the_session(
    gateway: Harness, tokenizer: Tokenizer
) -> None:
    gateway.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
    reply = ask(gateway, messages=[{"role": "user", "content": [IMAGE]}, USER])
    assert reply.status_code == 200
    assert "[image: left out" in prompt_of(gateway, tokenizer)


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        ("boom", "Error: boom"),
        ("ERROR: boom", "ERROR: boom"),
        ("<tool_use_error>boom", "<tool_use_error>boom"),
        ({"type": "text", "text": "boom"}, "Error: boom"),
        (["boom", "bam"], "Error: boombam"),
        ([{"type": "text", "text": "boom"}], "Error: boom"),
        (5, "Error: 5"),
        (None, "Error: "),
        ([], "Error: "),
        ([IMAGE], "Error: [image: left out, this model reads text only]"),
    ],
)
def test_a_failed_tool_is_told_with_all_that_it_said(
    gateway: Harness, tokenizer: Tokenizer, content: Any, shown: str
) -> None:
    gateway.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
    call = {"type": "tool_use", "id": "a", "name": "Read", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "a", "is_error": True, "content": content}
    turns = [
        USER,
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [result]},
    ]
    assert ask(gateway, messages=turns).status_code == 200
    assert f"<response>{shown}</response>" in prompt_of(gateway, tokenizer)


def test_pictures_are_left_out_of_what_is_asked_where_the_operator_says_so(
    make_gateway: Any, tokenizer: Tokenizer
) -> None:
    gateway: Harness = make_gateway(unreadable="placeholder")
    gateway.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
    asked = [{"role": "user", "content": [IMAGE, {"type": "text", "text": "what is it?"}]}]
    assert ask(gateway, messages=asked).status_code == 200
    assert "[image: left out, this model reads text only]what is it?" in prompt_of(
        gateway, tokenizer
    )
    part = {"type": "image_url", "image_url": {"url": "data:,x"}}
    assert gateway.chat(messages=[{"role": "user", "content": [part]}]).status_code == 200
    assert "[image_url: left out" in prompt_of(gateway, tokenizer)


def test_a_key_may_come_either_way(make_gateway: Any, tokenizer: Tokenizer) -> None:
    gateway: Harness = make_gateway(api_key=("a-good-secret", "another-secret"))
    good, other = "a-good-secret", "another-secret"
    for headers, status in (
        ({}, 401),
        ({"x-api-key": good}, 400),
        ({"Authorization": f"Bearer {good}"}, 400),
        ({"Authorization": f"Bearer {good}", "x-api-key": good}, 400),
        ({"Authorization": f"Bearer {good}", "x-api-key": other}, 401),
        ({"Authorization": "Basic x", "x-api-key": good}, 401),
        ({"x-api-key": "wrong-secret"}, 401),
        ({"Authorization": f"Bearer {good}", "x-api-key": ""}, 400),
        ({"x-api-key": ""}, 401),
    ):
        reply = gateway.post("/v1/messages", {"model": NAME}, headers=headers)
        assert reply.status_code == status, headers
        wanted = "authentication_error" if status == 401 else "invalid_request_error"
        assert reply.json()["error"]["type"] == wanted


def test_an_error_in_the_stream_is_its_last_event(gateway: Harness) -> None:
    gateway.script(
        lambda request: [
            tokens(0, [65]),
            0.3,
            ended(attention_pb2.FINISH_REASON_ERROR, "broke"),
        ]
    )
    last = events(ask(gateway, stream=True).text)[-1]
    assert (last["type"], last["error"]) == ("error", {"type": "api_error", "message": "broke"})


def test_busy_and_not_ready_have_the_statuses_that_clients_wait_for(gateway: Harness) -> None:
    gateway.script(lambda request: [(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")])
    reply = ask(gateway)
    assert (reply.status_code, reply.json()["error"]["type"]) == (429, "rate_limit_error")
    assert reply.headers["retry-after"]
    for replica in gateway.service.gateway.pool.replicas:
        replica.not_ready_reason = "loading"
    reply = ask(gateway)
    assert (reply.status_code, reply.json()["error"]["type"]) == (529, "overloaded_error")
