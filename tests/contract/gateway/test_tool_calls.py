"""Tool calls as OpenAI's client sees them (rows E1 to E4)."""

import json
from typing import Any

import pytest

from moe_model.text.tokenizer import Tokenizer
from tests.support.gateway.answers import WEATHER, events_of, invoke, thinking_answer, tool_answer
from tests.support.gateway.fake_attention import length, say, tokens
from tests.support.gateway.harness import Harness
from tests.support.gateway.model import EOS, NAME, TOOL_CALL

MESSAGES: Any = [{"role": "user", "content": "hello"}]


@pytest.fixture
def roomy(roomy_gateway: Harness) -> Harness:
    return roomy_gateway


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
            stream=True,
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
        tools=[WEATHER],
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


def first_and_cut(tokenizer: Tokenizer) -> list[int]:
    """A whole call, and one that ends within its value."""
    ids = tool_answer(tokenizer, invoke("weather", place="Rome"), invoke("weather", place="Paris"))
    ids.pop()  # the wrapper's end
    while not tokenizer.decode(ids).endswith("Par"):
        ids.pop()
    return ids


def arguments_of(choice: Any) -> list[str]:
    return [call["function"]["arguments"] for call in choice["message"]["tool_calls"]]


def ends_of(ids: list[int]) -> dict[str, Any]:
    return {
        "length": lambda r: [tokens(0, ids), length(len(ids))],
        "stop": say(ids, eos=EOS),
    }


@pytest.mark.parametrize("end", ["length", "stop"])
def test_a_call_that_was_cut_off_is_no_whole_json_and_no_tool_calls_end(
    roomy: Harness, tokenizer: Tokenizer, end: str
) -> None:
    roomy.script(ends_of(first_and_cut(tokenizer))[end])
    before = roomy.metric("tool_parse_errors_total")
    choice = roomy.chat(tools=[WEATHER]).json()["choices"][0]
    assert choice["finish_reason"] == end
    whole, cut = arguments_of(choice)
    assert json.loads(whole) == {"place": "Rome"}
    assert cut == '{"place": "Par'
    assert roomy.metric("tool_parse_errors_total") == before + 1


@pytest.mark.parametrize("end", ["length", "stop"])
def test_a_streamed_call_that_was_cut_off_is_the_same(
    roomy: Harness, tokenizer: Tokenizer, end: str
) -> None:
    roomy.script(ends_of(first_and_cut(tokenizer))[end])
    arguments, reasons = ["", ""], []
    for event in events_of(roomy.chat(stream=True, tools=[WEATHER]).text):
        choice = event["choices"][0]
        reasons.append(choice["finish_reason"])
        for call in choice["delta"].get("tool_calls", []):
            arguments[call["index"]] += call["function"].get("arguments", "")
    assert arguments == ['{"place": "Rome"}', '{"place": "Par']
    assert [reason for reason in reasons if reason] == [end]


def test_a_call_cut_before_its_name_is_no_text(roomy: Harness, tokenizer: Tokenizer) -> None:
    ids = tool_answer(tokenizer)[:-1] + tokenizer.encode_text('<invoke name="wea')
    roomy.script(ends_of(ids)["length"])
    choice = roomy.chat(tools=[WEATHER]).json()["choices"][0]
    assert (choice["finish_reason"], choice["message"]["content"].strip()) == ("length", "")
    assert "tool_calls" not in choice["message"]


def test_a_call_of_an_unknown_tool_reaches_the_client(roomy: Harness, tokenizer: Tokenizer) -> None:
    roomy.script(say(tool_answer(tokenizer, invoke("wether", place="Rome")), eos=EOS))
    choice = roomy.chat(tools=[WEATHER]).json()["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["tool_calls"][0]["function"]["name"] == "wether"
    assert arguments_of(choice) == ['{"place": "Rome"}']


def test_a_lone_surrogate_that_the_model_writes_loses_nothing(
    roomy: Harness, tokenizer: Tokenizer
) -> None:
    tool = {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {"type": "object", "properties": {"place": {"type": "object"}}},
        },
    }
    value = '{"k": "\\ud83d"}'
    ids = tool_answer(tokenizer, invoke("weather", place=value), answer="Before.")
    roomy.script(say(ids, eos=EOS))
    answer = roomy.chat(tools=[tool])
    assert answer.status_code == 200
    choice = answer.json()["choices"][0]
    assert choice["message"]["content"] == "Before."
    assert json.loads(arguments_of(choice)[0]) == {"place": {"k": "\ufffd"}}
    roomy.script(say(ids, eos=EOS))
    events = events_of(roomy.chat(stream=True, tools=[tool]).text)
    assert events[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_a_file_with_the_formats_own_tags_arrives_byte_for_byte(
    roomy: Harness, tokenizer: Tokenizer
) -> None:
    content = '<s>\n<parameter name="a">1</parameter>\n</invoke>\n</minimax:tool_call>\n</s>'
    roomy.script(say(tool_answer(tokenizer, invoke("weather", place=content)), eos=EOS))
    choice = roomy.chat(tools=[WEATHER]).json()["choices"][0]
    assert json.loads(arguments_of(choice)[0]) == {"place": content}
    assert choice["message"]["content"] is None


def test_parallel_false_gives_at_most_one_call(roomy: Harness, tokenizer: Tokenizer) -> None:
    roomy.script(say(tool_answer(tokenizer, invoke("weather"), invoke("weather")), eos=EOS))
    calls = roomy.chat(tools=[WEATHER], parallel_tool_calls=False).json()["choices"][0]["message"]
    assert len(calls["tool_calls"]) == 1


@pytest.mark.parametrize("fields", [{}, {"tools": []}, {"tools": None}])
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


def test_none_shows_the_tools_and_forbids_their_calls(roomy: Harness, tokenizer: Tokenizer) -> None:
    """So the cached prompt is the same whatever the choice."""
    roomy.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
    prompts = []
    for choice in ("auto", "none"):
        assert roomy.chat(tools=[WEATHER], tool_choice=choice).status_code == 200
        prompts.append(list(roomy.fake.requests[-1].prompt_token_ids))
    assert prompts[0] == prompts[1]
    bias = roomy.fake.requests[-1].sampling.logit_bias
    assert [(one.token_id, one.bias) for one in bias] == [(TOOL_CALL, -100.0)]


OTHER = {"type": "function", "function": {"name": "other", "parameters": {"type": "object"}}}


def allowed(mode: str, *names: str) -> dict[str, Any]:
    tools = [{"type": "function", "function": {"name": name}} for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_only_allowed_tools_are_offered(roomy: Harness, tokenizer: Tokenizer, mode: str) -> None:
    roomy.script(say(tool_answer(tokenizer, invoke("weather", place="Rome")), eos=EOS))
    choice = allowed(mode, "weather")
    reply = roomy.chat(tools=[WEATHER, OTHER], tool_choice=choice).json()["choices"][0]
    assert reply["finish_reason"] == "tool_calls"
    request = roomy.fake.requests[-1]
    prompt = tokenizer.decode(request.prompt_token_ids)
    assert "weather" in prompt
    assert '"other"' not in prompt
    assert ("weather" in request.grammar.text) == (mode == "required")


@pytest.mark.parametrize(
    "choice", [allowed("auto"), allowed("always", "weather"), allowed("auto", "absent")]
)
def test_a_wrong_list_of_allowed_tools_is_refused(roomy: Harness, choice: dict[str, Any]) -> None:
    reply = roomy.chat(tools=[WEATHER], tool_choice=choice)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"].startswith("tool_choice")


@pytest.mark.parametrize("tool", [5, {"type": "function"}, {"function": {"name": []}}])
def test_a_malformed_tool_beside_allowed_ones_is_no_failure(roomy: Harness, tool: Any) -> None:
    roomy.script(say([EOS], eos=EOS))
    reply = roomy.chat(tools=[WEATHER, tool], tool_choice=allowed("auto", "weather"))
    if reply.status_code != 200:  # one with another name is not shown, and so not read
        assert (reply.status_code, reply.json()["error"]["param"][:8]) == (400, "tools[1]")
