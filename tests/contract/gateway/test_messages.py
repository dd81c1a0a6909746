"""Anthropic's Messages API over HTTP: what a request asks of the model, and what it is answered."""

from collections.abc import Callable
from typing import Any

import httpx
import orjson
import pytest

from moe_model.text.tokenizer import Tokenizer
from tests.support.gateway.answers import invoke, thinking_answer, tool_answer
from tests.support.gateway.fake_attention import say, stopped, tokens
from tests.support.gateway.harness import Harness
from tests.support.gateway.messages import (
    THINKS,
    USER,
    WEATHER,
    ask,
    both,
    events,
    prompt_of,
)
from tests.support.gateway.model import EOS, NAME, ROOMY_CONTEXT, TOOL_CALL


@pytest.fixture
def gateway(roomy_gateway: Harness) -> Harness:
    return roomy_gateway


def test_an_answer_is_a_message_of_blocks(gateway: Harness, tokenizer: Tokenizer) -> None:
    gateway.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
    message = both(gateway, thinking=THINKS, temperature=0.25)
    thinking, text = message.pop("content")
    usage = message.pop("usage")
    assert (thinking["type"], thinking["thinking"].strip()) == ("thinking", "hm")
    assert len(thinking["signature"]) == 43
    assert text == {"type": "text", "text": "hi"}
    assert message == {
        "type": "message",
        "role": "assistant",
        "model": NAME,
        "stop_reason": "end_turn",
        "stop_sequence": None,
    }
    request = gateway.fake.requests[0]
    assert request.sampling.temperature == 0.25
    assert usage["input_tokens"] == len(request.prompt_token_ids)
    assert usage["output_tokens"] > 0 == usage["cache_read_input_tokens"]


def test_cached_tokens_of_the_prompt_are_counted_by_themselves(
    gateway: Harness, tokenizer: Tokenizer
) -> None:
    ids = [*thinking_answer(tokenizer, "hm", "hi"), EOS]
    gateway.script(lambda request: [tokens(0, ids), stopped(len(ids), EOS, cached=16)])
    usage = both(gateway)["usage"]
    assert usage["cache_read_input_tokens"] == 16
    assert usage["input_tokens"] == len(gateway.fake.requests[0].prompt_token_ids) - 16
    assert usage["cache_creation_input_tokens"] == 0, "clients would charge more for them"


@pytest.mark.parametrize("thinking", [None, {"type": "disabled"}])
def test_thinking_is_shown_to_those_who_asked_for_it(
    gateway: Harness, tokenizer: Tokenizer, thinking: Any
) -> None:
    """Else the first block of many programs is the text."""
    gateway.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
    assert both(gateway, thinking=thinking)["content"] == [{"type": "text", "text": "hi"}]
    omitted = both(gateway, thinking={"type": "adaptive", "display": "omitted"})["content"]
    assert [block["type"] for block in omitted] == ["thinking", "text"]
    assert omitted[0]["thinking"] == ""


def test_two_calls_are_two_blocks_and_wait(gateway: Harness, tokenizer: Tokenizer) -> None:
    calls = invoke("weather", place="Rome", days="3"), invoke("weather", place="Oslo")
    gateway.script(say(tool_answer(tokenizer, *calls), eos=EOS))
    message = both(gateway, tools=[WEATHER])
    assert message["stop_reason"] == "tool_use"
    assert message["content"] == [
        {"type": "tool_use", "name": "weather", "input": {"place": "Rome", "days": 3}},
        {"type": "tool_use", "name": "weather", "input": {"place": "Oslo"}},
    ]


def test_a_tool_turn_is_rendered_as_chat_renders_it(gateway: Harness, tokenizer: Tokenizer) -> None:
    """Thinking before the calls, results in the order of the calls, whatever the client's."""
    gateway.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
    ask(
        gateway,
        system=[{"type": "text", "text": "You help."}],
        tools=[WEATHER],
        messages=[
            USER,
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "two", "signature": "x"},
                    {"type": "text", "text": "Looking."},
                    {"type": "tool_use", "id": "a", "name": "weather", "input": {"place": "Rome"}},
                    {"type": "tool_use", "id": "b", "name": "weather", "input": {"days": 2}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "b",
                        "content": "rain",
                        "is_error": True,
                    },
                    {
                        "type": "tool_result",
                        "tool_use_id": "a",
                        "content": [{"type": "text", "text": "sun"}],
                        "cache_control": {"type": "ephemeral"},
                    },
                    {"type": "text", "text": "<system-reminder>\nbe brief\n</system-reminder>"},
                ],
            },
        ],
    )
    anthropic = gateway.fake.requests[-1].prompt_token_ids
    calls = [
        {"id": i, "function": {"name": "weather", "arguments": arguments}}
        for i, arguments in (("a", '{"place": "Rome"}'), ("b", '{"days": 2}'))
    ]
    function = {
        "name": "weather",
        "description": WEATHER["description"],
        "parameters": WEATHER["input_schema"],
    }
    gateway.chat(
        tools=[{"type": "function", "function": function}],
        messages=[
            {"role": "system", "content": "You help."},
            USER,
            {
                "role": "assistant",
                "reasoning_content": "two",
                "content": "Looking.",
                "tool_calls": calls,
            },
            {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "sun"}]},
            {"role": "tool", "tool_call_id": "b", "content": "Error: rain"},
            {"role": "system", "content": "be brief"},
        ],
    )
    assert tokenizer.decode(gateway.fake.requests[-1].prompt_token_ids) == tokenizer.decode(
        anthropic
    )


def test_the_clients_billing_line_is_no_part_of_the_prompt(
    gateway: Harness, tokenizer: Tokenizer
) -> None:
    gateway.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
    line = {"type": "text", "text": "x-anthropic-billing-header: cc_version=2; cc_entrypoint=cli;"}
    ask(gateway, system=[line, {"type": "text", "text": "one"}, {"type": "text", "text": "two"}])
    prompt = prompt_of(gateway, tokenizer)
    assert "billing" not in prompt
    assert "one\n\ntwo" in prompt


def test_a_stop_sequence_is_named(gateway: Harness, tokenizer: Tokenizer) -> None:
    gateway.script(say(thinking_answer(tokenizer, "hm", "one STOP two"), eos=EOS))
    message = both(gateway, stop_sequences=["STOP"])
    assert message["content"] == [{"type": "text", "text": "one "}]
    assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", "STOP")


def test_a_limit_is_told_apart_from_the_end_of_the_context(
    gateway: Harness, tokenizer: Tokenizer
) -> None:
    gateway.script(say(thinking_answer(tokenizer, "hm", "a long answer"), eos=EOS))
    assert both(gateway, max_tokens=6)["stop_reason"] == "max_tokens"
    full = [{"role": "user", "content": "x " * (ROOMY_CONTEXT // 2 - 40)}]
    assert ask(gateway, messages=full, max_tokens=32000).status_code == 200
    room = gateway.fake.requests[-1].sampling.max_tokens
    assert 0 < room < 100
    long = thinking_answer(tokenizer, "hm", "y" * 200)
    gateway.script(say(long, eos=EOS))
    message = both(gateway, messages=full, max_tokens=32000)
    assert message["stop_reason"] == "model_context_window_exceeded"


def test_a_long_integer_is_not_rounded(gateway: Harness, tokenizer: Tokenizer) -> None:
    days = "1" + "0" * 30
    ids = tool_answer(tokenizer, invoke("weather", days=days))
    gateway.script(say(ids, eos=EOS))
    (call,) = both(gateway, tools=[WEATHER])["content"]
    assert call["input"] == {"days": int(days)}


def test_a_cut_call_is_never_whole(gateway: Harness, tokenizer: Tokenizer) -> None:
    ids = tool_answer(tokenizer, invoke("weather", place="Rome"))
    cut = len(ids) - 12
    gateway.script(say(ids, eos=EOS))
    whole = ask(gateway, tools=[WEATHER], max_tokens=cut).json()
    assert whole["stop_reason"] == "max_tokens"
    assert all(block["type"] != "tool_use" for block in whole["content"])
    stream = events(ask(gateway, tools=[WEATHER], max_tokens=cut, stream=True).text)
    parts = [e["delta"]["partial_json"] for e in stream if "partial_json" in e.get("delta", {})]
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads("".join(parts))


def test_no_tool_can_be_called_and_all_are_shown(gateway: Harness, tokenizer: Tokenizer) -> None:
    gateway.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
    ask(gateway, tools=[WEATHER], tool_choice={"type": "auto"})
    with_tools = list(gateway.fake.requests[-1].prompt_token_ids)
    ask(gateway, tools=[WEATHER], tool_choice={"type": "none"})
    request = gateway.fake.requests[-1]
    assert list(request.prompt_token_ids) == with_tools
    assert [(b.token_id, b.bias) for b in request.sampling.logit_bias] == [(TOOL_CALL, -100.0)]


@pytest.mark.parametrize("kind", ["any", "tool"])
def test_a_forced_call_has_a_grammar(gateway: Harness, tokenizer: Tokenizer, kind: str) -> None:
    gateway.script(say(tool_answer(tokenizer, invoke("weather", place="Rome")), eos=EOS))
    choice = {"type": kind, "name": "weather", "disable_parallel_tool_use": True}
    ask(gateway, tools=[WEATHER, {**WEATHER, "name": "other"}], tool_choice=choice)
    grammar = gateway.fake.requests[-1].grammar.text
    assert "weather" in grammar
    assert ("other" in grammar) == (kind == "any")


def test_a_json_answer_has_a_grammar(gateway: Harness, tokenizer: Tokenizer) -> None:
    gateway.script(say(thinking_answer(tokenizer, "hm", '{"a": 1}'), eos=EOS))
    wanted = {"type": "json_schema", "schema": {"type": "object", "required": ["zebra"]}}
    for fields in (
        {"output_config": {"format": wanted, "effort": "high"}},
        {"output_format": wanted},
    ):
        assert ask(gateway, **fields).status_code == 200
        assert "zebra" in gateway.fake.requests[-1].grammar.text


def test_an_answer_goes_on_from_what_the_client_began(
    gateway: Harness, tokenizer: Tokenizer
) -> None:
    gateway.script(say(tokenizer.encode_text("llo"), eos=EOS))
    begun = [USER, {"role": "assistant", "content": "he"}]
    message = both(gateway, messages=begun)
    assert message["content"] == [{"type": "text", "text": "llo"}]
    assert prompt_of(gateway, tokenizer).endswith("ai\n<think>\n\n</think>\n\nhe")


def test_what_agents_send_beside_is_taken(gateway: Harness, tokenizer: Tokenizer) -> None:
    gateway.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
    reply = ask(
        gateway,
        headers={
            "anthropic-version": "2023-06-01",
            "anthropic-beta": "claude-code-20250219,unknown-2030-01-01",
            "x-app": "cli",
        },
        thinking={"type": "adaptive"},
        output_config={"effort": "high"},
        context_management={"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        metadata={"user_id": '{"device": "x"}'},
        service_tier="auto",
        messages=[USER, {"role": "system", "content": "be brief"}],
    )
    assert reply.status_code == 200
    assert reply.headers["request-id"] == reply.headers["x-request-id"]
    assert "<system-reminder>\nbe brief\n</system-reminder>[e~[\n]~b]ai" in prompt_of(
        gateway, tokenizer
    )


def test_signatures_that_come_back_are_counted_and_never_refused(
    make_gateway: Callable[..., Harness], roomy_options: dict[str, Any], tokenizer: Tokenizer
) -> None:
    gateway = make_gateway(**roomy_options)
    gateway.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
    thinking = ask(gateway, thinking=THINKS).json()["content"][0]
    for block in (thinking, {**thinking, "thinking": "other"}, {**thinking, "signature": ""}):
        turn = {"role": "assistant", "content": [block, {"type": "text", "text": "hi"}]}
        assert ask(gateway, messages=[USER, turn, USER]).status_code == 200
    text = gateway.get("/metrics").text
    for verdict in ("valid", "wrong", "missing"):
        assert f'thinking_signatures_total{{verdict="{verdict}"}} 1.0' in text


def test_tokens_are_counted_as_the_prompt_has_them(gateway: Harness, tokenizer: Tokenizer) -> None:
    gateway.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
    ask(gateway, tools=[WEATHER], system="s")
    counted = ask(
        gateway, path="/v1/messages/count_tokens", tools=[WEATHER], system="s", max_tokens=None
    )
    assert counted.json() == {"input_tokens": len(gateway.fake.requests[-1].prompt_token_ids)}


def test_models_have_the_shape_of_whoever_asks(gateway: Harness) -> None:
    asked = {"anthropic-version": "2023-06-01"}
    page = gateway.get("/v1/models", headers=asked).json()
    assert (page["first_id"], page["last_id"], page["has_more"]) == (NAME, "alias", False)
    assert page["data"][0]["type"] == "model"
    assert gateway.get(f"/v1/models/{NAME}", headers=asked).json() == page["data"][0]
    assert gateway.get("/v1/models").json()["object"] == "list"
    missing = gateway.get("/v1/models/none", headers=asked)
    assert (missing.status_code, missing.json()["error"]["type"]) == (404, "not_found_error")


def test_the_root_answers_a_head(gateway: Harness) -> None:
    reply = httpx.head(gateway.base_url, timeout=10, follow_redirects=True)
    assert (reply.status_code, [one.status_code for one in reply.history]) == (200, [307])


def test_requests_are_counted_under_the_apis_name(
    make_gateway: Callable[..., Harness], roomy_options: dict[str, Any], tokenizer: Tokenizer
) -> None:
    gateway = make_gateway(**roomy_options)
    gateway.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
    ask(gateway)
    ask(gateway, max_tokens=0)
    told = gateway.get("/metrics").text
    for series in (
        'requests_total{api="messages",outcome="ok"} 1.0',
        'requests_total{api="messages",outcome="client_error"} 1.0',
        'ttft_seconds_count{api="messages"} 1.0',
        'e2e_seconds_count{api="messages"} 2.0',
    ):
        assert f"expertmesh_{series}" in told, series
