"""OpenAI's Responses API over HTTP: what a request asks of the model, and what it is answered."""

from typing import Any

import pytest

from moe_model.text.tokenizer import Tokenizer
from tests.support.gateway.answers import invoke, thinking_answer, tool_answer
from tests.support.gateway.fake_attention import length, say, stopped, tokens
from tests.support.gateway.harness import Harness
from tests.support.gateway.model import EOS, NAME
from tests.support.gateway.responses import (
    AGENTS,
    PATCH,
    WEATHER,
    ask,
    assembled,
    both,
    events,
    without_ids,
)


@pytest.fixture
def gateway(roomy_gateway: Harness) -> Harness:
    return roomy_gateway


def prompt_of(gateway: Harness, tokenizer: Tokenizer) -> str:
    return tokenizer.decode(gateway.fake.requests[-1].prompt_token_ids)


def test_an_answer_is_a_response_of_items(gateway: Harness, tokenizer: Tokenizer) -> None:
    gateway.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
    response = both(
        gateway,
        temperature=0.25,
        metadata={"a": "b"},
        instructions="be brief",
        reasoning={"effort": "high", "summary": "auto"},
    )
    thinking, message = response["output"]
    assert thinking["id"].startswith("rs_")
    assert without_ids(thinking) == {
        "type": "reasoning",
        "status": "completed",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": "hm"}],
        "encrypted_content": None,
    }
    assert message["id"].startswith("msg_")
    assert without_ids(message) == {
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": [{"type": "output_text", "text": "hi", "annotations": [], "logprobs": []}],
    }
    request = gateway.fake.requests[0]
    assert request.sampling.temperature == 0.25
    told = {"model": NAME, "temperature": 0.25, "top_p": 0.95, "metadata": {"a": "b"}}
    told |= {"status": "completed", "error": None, "instructions": "be brief", "warnings": []}
    assert told.items() <= response.items()
    usage = response["usage"]
    assert usage["input_tokens"] == len(request.prompt_token_ids)
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert 0 < usage["output_tokens_details"]["reasoning_tokens"] < usage["output_tokens"]


def test_cached_tokens_are_a_part_of_the_input(gateway: Harness, tokenizer: Tokenizer) -> None:
    ids = [*thinking_answer(tokenizer, "hm", "hi"), EOS]
    gateway.script(lambda request: [tokens(0, ids), stopped(len(ids), EOS, cached=16)])
    usage = both(gateway)["usage"]
    assert usage["input_tokens_details"]["cached_tokens"] == 16
    assert usage["input_tokens"] == len(gateway.fake.requests[0].prompt_token_ids)


def test_calls_are_items_and_name_their_namespace(gateway: Harness, tokenizer: Tokenizer) -> None:
    calls = invoke("weather", place="Rome", days="3"), invoke("agents.ask", place="Oslo")
    gateway.script(say(tool_answer(tokenizer, *calls, answer="so"), eos=EOS))
    response = both(gateway, tools=[{"type": "web_search"}, WEATHER, AGENTS])
    assert response["status"] == "completed"
    assert [item["type"] for item in response["output"]] == [
        *("reasoning", "message", "function_call", "function_call")
    ]
    known = {"type": "function_call", "status": "completed"}
    assert without_ids(response["output"][2:]) == [
        {**known, "name": "weather", "arguments": '{"place": "Rome", "days": 3}'},
        {**known, "name": "ask", "namespace": "agents", "arguments": '{"place": "Oslo"}'},
    ]
    assert all(item["call_id"].startswith("call_") for item in response["output"][2:])


def test_a_tool_that_the_server_would_run_is_left_out_with_a_warning(
    gateway: Harness, tokenizer: Tokenizer
) -> None:
    gateway.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
    response = both(gateway, tools=[WEATHER, {"type": "web_search", "external_web_access": False}])
    assert response["tools"] == [WEATHER]
    assert response["warnings"] == [
        "tools[1]: 'web_search' is not served here, the tool was left out"
    ]
    assert "web_search" not in prompt_of(gateway, tokenizer)


def test_a_tool_turn_is_rendered_as_chat_renders_it(gateway: Harness, tokenizer: Tokenizer) -> None:
    """Thinking and text before the calls, results in the order of the calls."""
    gateway.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
    thought = {"type": "reasoning_text", "text": "two"}
    said = {"type": "output_text", "text": "Looking.", "annotations": []}
    ask(
        gateway,
        instructions="You help.",
        tools=[WEATHER, PATCH, AGENTS],
        input=[
            {"role": "user", "content": "hello"},
            {"type": "reasoning", "id": "rs_1", "summary": [], "content": [thought]},
            {"type": "message", "role": "assistant", "content": [said], "id": "msg_1"},
            {
                "type": "function_call",
                "call_id": "a",
                "name": "weather",
                "arguments": '{"place": "Rome"}',
            },
            {"type": "custom_tool_call", "call_id": "b", "name": "patch", "input": "x\ny"},
            {
                "type": "function_call",
                "call_id": "c",
                "namespace": "agents",
                "name": "ask",
                "arguments": "{}",
            },
            {
                "type": "custom_tool_call_output",
                "call_id": "b",
                "output": [{"type": "input_text", "text": "rain"}],
            },
            {"type": "function_call_output", "call_id": "c", "output": "no"},
            {"type": "function_call_output", "call_id": "a", "output": "sun"},
            {"type": "message", "role": "developer", "content": "be brief"},
        ],
    )
    responses = gateway.fake.requests[-1].prompt_token_ids
    named = (
        ("a", "weather", '{"place": "Rome"}'),
        ("b", "patch", '{"input": "x\\ny"}'),
        ("c", "agents.ask", "{}"),
    )
    calls = [
        {"id": i, "function": {"name": name, "arguments": arguments}}
        for i, name, arguments in named
    ]
    keys = ("name", "description", "strict", "parameters")
    weather = {key: WEATHER[key] for key in keys}
    inner: dict[str, Any] = AGENTS["tools"][0]  # type: ignore[assignment]
    text = {"type": "string", "description": "The whole input, as plain text."}
    patch = {
        "name": "patch",
        "description": "Change files",
        "parameters": {
            "type": "object",
            "properties": {"input": text},
            "required": ["input"],
            "additionalProperties": False,
        },
    }
    agents_ask = {"name": "agents.ask", **{key: inner[key] for key in keys[1:]}}
    gateway.chat(
        tools=[{"type": "function", "function": one} for one in (weather, patch, agents_ask)],
        messages=[
            {"role": "system", "content": "You help."},
            {"role": "user", "content": "hello"},
            {
                "role": "assistant",
                "reasoning_content": "two",
                "content": "Looking.",
                "tool_calls": calls,
            },
            {"role": "tool", "tool_call_id": "a", "content": "sun"},
            {"role": "tool", "tool_call_id": "b", "content": [{"type": "text", "text": "rain"}]},
            {"role": "tool", "tool_call_id": "c", "content": "no"},
            {"role": "system", "content": "be brief"},
        ],
    )
    assert tokenizer.decode(gateway.fake.requests[-1].prompt_token_ids) == tokenizer.decode(
        responses
    )


def test_what_was_answered_continues_the_prompt_when_it_comes_back(
    gateway: Harness, tokenizer: Tokenizer
) -> None:
    ids = tool_answer(tokenizer, invoke("weather", place="Rome"), answer="so")
    gateway.script(say(ids, eos=EOS))
    question = {"role": "user", "content": "hello"}
    output = ask(gateway, tools=[WEATHER], input=[question]).json()["output"]
    result = {"type": "function_call_output", "call_id": output[-1]["call_id"], "output": "sun"}
    ask(gateway, tools=[WEATHER], input=[question, *output, result])
    first, second = (list(request.prompt_token_ids) for request in gateway.fake.requests)
    emitted = [*first, *ids, EOS]
    assert second[: len(emitted)] == emitted


def test_dropped_thinking_is_put_back(gateway: Harness, tokenizer: Tokenizer) -> None:
    """As in the other APIs, of a conversation that the client names."""
    ids = tool_answer(tokenizer, invoke("weather", place="Rome"))
    gateway.script(say(ids, eos=EOS))
    named = {"tools": [WEATHER], "prompt_cache_key": "one"}
    question = {"role": "user", "content": "hello"}
    call = ask(gateway, input=[question], **named).json()["output"][-1]
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": "sun"}
    ask(gateway, input=[question, call, result], **named)
    first, second = (list(request.prompt_token_ids) for request in gateway.fake.requests)
    assert second[: len(first) + len(ids)] == [*first, *ids]


def test_a_limit_leaves_the_response_incomplete(gateway: Harness, tokenizer: Tokenizer) -> None:
    gateway.script(say(thinking_answer(tokenizer, "hm", "one two"), eos=EOS))
    response = both(gateway, max_output_tokens=9)
    assert response["status"] == "incomplete"
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert response["output"][-1]["status"] == "incomplete"
    assert response["usage"]["output_tokens"] == 9


@pytest.mark.parametrize("tool", [WEATHER, PATCH])
def test_a_cut_call_is_no_item_of_the_response(
    gateway: Harness, tokenizer: Tokenizer, tool: dict[str, Any]
) -> None:
    """A part of a patch is a patch, too: nobody may run it."""
    ids = tool_answer(tokenizer, invoke(tool["name"], input="rm -r / not this"))[:-25]
    gateway.script(lambda request: [tokens(0, ids), length(len(ids))])
    response = both(gateway, tools=[tool])
    assert [item["type"] for item in response["output"]] == ["reasoning"]
    stream = events(ask(gateway, tools=[tool], stream=True).text)
    kinds = [event["type"] for event in stream]
    assert kinds.count("response.output_item.added") == 2
    assert kinds.count("response.output_item.done") == 1


def test_log_probabilities_are_those_of_the_text(gateway: Harness, tokenizer: Tokenizer) -> None:
    gateway.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
    response = both(gateway, include=["message.output_text.logprobs"], top_logprobs=2)
    assert gateway.fake.requests[0].sampling.top_logprobs == 2
    logprobs = response["output"][1]["content"][0]["logprobs"]
    assert "".join(one["token"] for one in logprobs).strip() == "hi"
    refused = ask(gateway, top_logprobs=2)
    assert refused.json()["error"]["param"] == "top_logprobs"


@pytest.mark.parametrize(
    ("format", "has"),
    [
        ({"type": "text"}, False),
        ({"type": "json_object"}, True),
        ({"type": "json_schema", "name": "x", "schema": {"type": "integer"}, "strict": True}, True),
    ],
)
def test_a_format_is_a_grammar(
    gateway: Harness, tokenizer: Tokenizer, format: Any, has: bool
) -> None:
    gateway.script(say(thinking_answer(tokenizer, "hm", "12"), eos=EOS))
    assert both(gateway, text={"format": format})["text"]["format"] == format
    assert bool(gateway.fake.requests[0].grammar.text) is has


@pytest.mark.parametrize(
    ("choice", "shown", "forced"),
    [
        ("auto", ["weather", "agents.ask", "patch"], []),
        ("required", ["weather", "agents.ask", "patch"], ["weather", "agents.ask", "patch"]),
        ({"type": "function", "name": "ask"}, ["weather", "agents.ask", "patch"], ["agents.ask"]),
        ({"type": "custom", "name": "patch"}, ["weather", "agents.ask", "patch"], ["patch"]),
        (
            {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "web_search"}, {"type": "function", "name": "weather"}],
            },
            ["weather"],
            ["weather"],
        ),
        (
            {
                "type": "allowed_tools",
                "mode": "auto",
                "tools": [{"type": "custom", "name": "patch"}],
            },
            ["patch"],
            [],
        ),
    ],
)
def test_a_choice_shows_and_forces_tools(
    gateway: Harness, tokenizer: Tokenizer, choice: Any, shown: list[str], forced: list[str]
) -> None:
    gateway.script(say(tool_answer(tokenizer, invoke("weather", place="Rome")), eos=EOS))
    assert ask(gateway, tools=[WEATHER, AGENTS, PATCH], tool_choice=choice).status_code == 200
    prompt, grammar = prompt_of(gateway, tokenizer), gateway.fake.requests[-1].grammar.text
    names = ["weather", "agents.ask", "patch"]
    assert [name for name in names if f'"name": "{name}"' in prompt] == shown
    assert [name for name in names if f'<invoke name=\\"{name}\\">' in grammar] == forced


def test_a_long_namespaced_name_is_shortened_and_comes_back_whole(
    gateway: Harness, tokenizer: Tokenizer
) -> None:
    long = {**AGENTS, "name": "n" * 60}
    gateway.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
    ask(gateway, tools=[long])
    prompt = prompt_of(gateway, tokenizer)
    flat = prompt.partition('"name": "')[2].partition('"')[0]
    assert len(flat) == 64
    gateway.script(say(tool_answer(tokenizer, invoke(flat, place="x")), eos=EOS))
    call = both(gateway, tools=[long])["output"][-1]
    assert (call["namespace"], call["name"]) == ("n" * 60, "ask")


def test_what_agents_send_beside_is_taken(gateway: Harness, tokenizer: Tokenizer) -> None:
    gateway.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
    call = {"type": "local_shell_call", "call_id": "s", "action": {"command": ["ls"]}}
    reply = ask(
        gateway,
        store=False,
        truncation="auto",
        include=["reasoning.encrypted_content", "web_search_call.action.sources"],
        client_metadata={"x": "y"},
        service_tier="auto",
        stream_options={"include_obfuscation": False},
        input=[
            {"role": "user", "content": [{"type": "input_image", "image_url": "data:x"}]},
            call,
            {"type": "local_shell_call_output", "call_id": "s", "output": "README"},
            {"type": "web_search_call", "id": "ws_1", "status": "completed"},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "so?"}]},
        ],
    )
    assert reply.status_code == 200, reply.text
    assert reply.json()["warnings"] == [
        "input[3]: items of type 'web_search_call' are left out",
        "truncation: 'auto' drops nothing here; an input that is too long is refused",
    ]
    assert '<invoke name="local_shell">' in prompt_of(gateway, tokenizer)


def test_tokens_are_counted_as_the_prompt_has_them(gateway: Harness, tokenizer: Tokenizer) -> None:
    gateway.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
    ask(gateway, tools=[WEATHER], instructions="s")
    counted = ask(gateway, path="/v1/responses/input_tokens", tools=[WEATHER], instructions="s")
    assert counted.json() == {
        "object": "response.input_tokens",
        "input_tokens": len(gateway.fake.requests[-1].prompt_token_ids),
    }


def test_requests_are_counted_under_the_apis_name(
    make_gateway: Any, roomy_options: dict[str, Any], tokenizer: Tokenizer
) -> None:
    gateway: Harness = make_gateway(**roomy_options)
    gateway.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
    ask(gateway)
    told = gateway.get("/metrics").text
    assert 'expertmesh_requests_total{api="responses",outcome="ok"} 1.0' in told


def test_the_streams_last_response_is_the_whole(gateway: Harness, tokenizer: Tokenizer) -> None:
    gateway.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS, step=2))
    stream = events(ask(gateway, stream=True).text)
    assert assembled(stream)["status"] == "completed"
    assert {
        *("response.created", "response.in_progress", "response.completed"),
        *("response.output_item.added", "response.output_item.done"),
        *("response.content_part.added", "response.content_part.done"),
        *("response.reasoning_text.delta", "response.reasoning_text.done"),
        *("response.output_text.delta", "response.output_text.done"),
    } == {event["type"] for event in stream}
