"""Tool calls as OpenAI's client sees them (rows E1 to E4)."""

import json
from typing import Any

import pytest
from answers import WEATHER, events_of, invoke, thinking_answer, tool_answer
from fake_attention import length, say, tokens
from gateway_harness import Harness
from gateway_model import EOS, NAME

from minimax_m2.chat.tokenizer import Tokenizer

MESSAGES: Any = [{"role": "user", "content": "hello"}]
CONTEXT_OF_TOOLS = 4096


@pytest.fixture
def roomy(make_gateway: Any, tmp_path: Any) -> Harness:
    """A gateway whose context has room for tools."""
    from gateway_harness import ready_status
    from gateway_model import write_tiny_model

    folder = write_tiny_model(tmp_path / "roomy", context=CONTEXT_OF_TOOLS)
    gateway: Harness = make_gateway(model_folder=folder, status=ready_status(CONTEXT_OF_TOOLS))
    return gateway


@pytest.mark.parametrize("step", [1, 5, 1000])
def test_calls_stream_as_they_are_produced(roomy: Harness, tokenizer: Tokenizer, step: int) -> None:
    ids = tool_answer(
        tokenizer, invoke("weather", place="Paris", days="3"), invoke("weather", place="Rome")
    )
    roomy.script(say(ids, eos=EOS, step=step))
    chunks = list(
        roomy.client().chat.completions.create(
            model=NAME,
            messages=MESSAGES,
            tools=[WEATHER],
            stream=True,  # type: ignore[list-item]
        )
    )
    names: dict[int, str] = {}
    call_ids: dict[int, str] = {}
    arguments: dict[int, str] = {}
    for chunk in chunks:
        for call in chunk.choices[0].delta.tool_calls or []:
            if call.index not in names:
                assert call.id
                assert call.function
                assert call.function.name
                names[call.index] = call.function.name
                call_ids[call.index] = call.id
            else:
                assert call.id is None
            arguments[call.index] = arguments.get(call.index, "") + (
                (call.function.arguments if call.function else None) or ""
            )
    assert names == {0: "weather", 1: "weather"}
    assert len(set(call_ids.values())) == 2
    assert json.loads(arguments[0]) == {"place": "Paris", "days": 3}
    assert json.loads(arguments[1]) == {"place": "Rome"}
    assert [c.choices[0].finish_reason for c in chunks if c.choices[0].finish_reason] == [
        "tool_calls"
    ]


def test_arguments_arrive_before_the_call_is_complete(roomy: Harness, tokenizer: Tokenizer) -> None:
    ids = tool_answer(tokenizer, invoke("weather", place="a long place name"))
    roomy.script(say(ids, eos=EOS))
    events = events_of(roomy.chat(stream=True, tools=[WEATHER]).text)
    fragments = [e for e in events if "tool_calls" in e["choices"][0]["delta"]]
    assert len(fragments) > 5


def test_calls_of_a_whole_answer(roomy: Harness, tokenizer: Tokenizer) -> None:
    roomy.script(
        say(tool_answer(tokenizer, invoke("weather", place="Paris"), answer="Let me see."), eos=EOS)
    )
    reply = roomy.client().chat.completions.create(
        model=NAME,
        messages=MESSAGES,
        tools=[WEATHER],  # type: ignore[list-item]
    )
    choice = reply.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "Let me see."
    assert choice.message.tool_calls
    call = choice.message.tool_calls[0]
    assert call.type == "function"
    assert (call.function.name, json.loads(call.function.arguments)) == (
        "weather",
        {"place": "Paris"},
    )


def test_a_call_without_content_has_null_content(roomy: Harness, tokenizer: Tokenizer) -> None:
    roomy.script(say(tool_answer(tokenizer, invoke("weather")), eos=EOS))
    message = roomy.chat(tools=[WEATHER]).json()["choices"][0]["message"]
    assert message["content"] is None
    assert message["tool_calls"][0]["function"]["arguments"] == "{}"


def test_a_call_cut_by_max_tokens_is_a_length_end_with_valid_arguments(
    roomy: Harness, tokenizer: Tokenizer
) -> None:
    ids = tool_answer(tokenizer, invoke("weather", place="Paris"))
    cut = ids[: len(ids) - 20]
    roomy.script(lambda r: [tokens(0, cut), length(len(cut))])
    before = roomy.metric("tool_parse_errors_total")
    choice = roomy.chat(tools=[WEATHER]).json()["choices"][0]
    assert choice["finish_reason"] == "length"
    json.loads(choice["message"]["tool_calls"][0]["function"]["arguments"])
    assert roomy.metric("tool_parse_errors_total") == before + 1


def test_parallel_false_gives_at_most_one_call(roomy: Harness, tokenizer: Tokenizer) -> None:
    roomy.script(say(tool_answer(tokenizer, invoke("weather"), invoke("weather")), eos=EOS))
    calls = roomy.chat(tools=[WEATHER], parallel_tool_calls=False).json()["choices"][0]["message"]
    assert len(calls["tool_calls"]) == 1


@pytest.mark.parametrize(
    "fields", [{}, {"tools": []}, {"tools": None}, {"tools": [WEATHER], "tool_choice": "none"}]
)
def test_without_offered_tools_a_call_is_text(
    roomy: Harness, tokenizer: Tokenizer, fields: dict[str, Any]
) -> None:
    roomy.script(say(tool_answer(tokenizer, invoke("weather")), eos=EOS))
    choice = roomy.chat(**fields).json()["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert "<invoke" in choice["message"]["content"]
    assert "tool_calls" not in choice["message"]
    assert "weather" not in roomy.service.gateway.model.tokenizer.decode(
        roomy.fake.requests[0].prompt_token_ids
    )


def test_a_tool_loop_keeps_thinking_and_order(roomy: Harness, tokenizer: Tokenizer) -> None:
    roomy.script(say(thinking_answer(tokenizer, "done", "sunny"), eos=EOS))
    history: Any = [
        *MESSAGES,
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "I should look",
            "tool_calls": [
                {
                    "id": "a",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"place": "P"}'},
                },
                {"id": "b", "type": "function", "function": {"name": "weather", "arguments": ""}},
            ],
        },
        {"role": "tool", "tool_call_id": "b", "content": "rain"},
        {"role": "tool", "tool_call_id": "a", "content": "sun"},
    ]
    reply = roomy.chat(messages=history, tools=[WEATHER])
    assert reply.status_code == 200, reply.text
    prompt = tokenizer.decode(roomy.fake.requests[0].prompt_token_ids)
    assert "<think>\nI should look\n</think>" in prompt
    assert prompt.index("<response>sun") < prompt.index("<response>rain")
    assert "None" not in prompt


def named(name: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {}}}


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"properties": {"a": schema}}
    return schema


@pytest.mark.parametrize(
    "tools",
    [
        [named(f"f{i}") for i in range(129)],
        [{"type": "function", "function": {"name": "f", "description": "x" * 300_000}}],
        [{"type": "function", "function": {"name": "f", "parameters": deep(20)}}],
        [named("")],
        [named("x" * 65)],
        [named('a"b')],
        [named("a>b")],
        [named("a\nb")],
        [named("f"), named("f")],
        [named("wеather")],  # a Cyrillic letter
        [named(5)],
        [5],
        [{"type": "retrieval"}],
        [{"type": "function"}],
        "f",
        {"a": 1},
    ],
    ids=lambda tools: str(tools)[:40],
)
def test_tools_that_cannot_be_offered_are_refused_by_name(gateway: Harness, tools: Any) -> None:
    reply = gateway.chat(tools=tools)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"].startswith("tools")


def test_a_schema_that_refers_to_itself_costs_nothing(roomy: Harness, tokenizer: Tokenizer) -> None:
    roomy.script(say(tool_answer(tokenizer, invoke("loop", a="5")), eos=EOS))
    schema = {
        "$defs": {"n": {"$ref": "#/$defs/n"}},
        "properties": {"a": {"$ref": "#/$defs/n"}, "b": {"pattern": "(a+)+$"}},
    }
    tool = {"type": "function", "function": {"name": "loop", "parameters": schema}}
    message = roomy.chat(tools=[tool]).json()["choices"][0]["message"]
    assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == {"a": "5"}
