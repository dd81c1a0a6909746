"""Structured answers through the real services, from a model that tends to answer otherwise."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.support.served_model import PYTHON_TOOL, Served, serve

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]

SCHEMA = {
    "type": "object",
    "properties": {
        "answer": {"type": "integer"},
        "unit": {"enum": ["apples", "days", None]},
        "steps": {"type": "array", "items": {"type": "string", "maxLength": 12}, "maxItems": 3},
    },
    "required": ["answer", "unit", "steps"],
    "additionalProperties": False,
}
TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather of the next days",
            "parameters": {
                "type": "object",
                "properties": {
                    "days": {"type": "integer", "minimum": 1, "maximum": 9},
                    "city": {"type": "string"},
                    "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
                },
                "required": ["city", "days"],
            },
        },
    },
    PYTHON_TOOL,
]
QUESTIONS = ("What is 12 + 30?", "What is 7 * 8?", "Sort 3 1 2", "hello")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    yield from serve(tmp_path_factory.mktemp("state") / "epoch")


def ask(
    served: Served, number: int, *, stream: bool, **fields: Any
) -> tuple[Any, str, str, list[Any]]:
    """(finish_reason, thinking, content, calls as [name, arguments])."""
    create = served.client.chat.completions.create
    messages: Any = [{"role": "user", "content": QUESTIONS[number % len(QUESTIONS)]}]
    known = {"model": served.model, "messages": messages, "seed": number, "max_tokens": 600}
    if not stream:
        choice = create(**known, **fields).choices[0]
        message = choice.message
        calls = [[c.function.name, c.function.arguments] for c in message.tool_calls or []]
        return choice.finish_reason, message.reasoning_content, message.content or "", calls
    finish, thinking, content, calls = None, "", "", []
    for chunk in create(**known, **fields, stream=True):
        (choice,) = chunk.choices
        finish = choice.finish_reason or finish
        content += choice.delta.content or ""
        thinking += getattr(choice.delta, "reasoning_content", None) or ""
        for call in choice.delta.tool_calls or []:
            if call.function.name:
                calls.append([call.function.name, ""])
            calls[call.index][1] += call.function.arguments or ""
    return finish, thinking, content, calls


@pytest.mark.parametrize("stream", [False, True])
def test_json_answers_are_what_the_schema_says(served: Served, stream: bool):
    wanted: Any = {
        "type": "json_schema",
        "json_schema": {"name": "a", "schema": SCHEMA, "strict": True},
    }
    for number in range(4):
        temperature = 2.0 if number == 3 else 1.0
        finish, thinking, content, calls = ask(
            served, number, stream=stream, response_format=wanted, temperature=temperature
        )
        assert finish == "stop"
        assert thinking
        assert calls == []
        value = json.loads(content)
        assert list(value) == ["answer", "unit", "steps"]
        assert isinstance(value["answer"], int)
        assert value["unit"] in ("apples", "days", None)
        assert len(value["steps"]) <= 3
        assert all(isinstance(step, str) and len(step) <= 12 for step in value["steps"])


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("choice", ["required", "weather", "python_executor"])
def test_a_forced_call_comes_every_time(served: Served, choice: str, stream: bool):
    named = {"type": "function", "function": {"name": choice}}
    for number in range(2):  # the model rambles on other questions, up to any limit
        finish, _, content, calls = ask(
            served,
            number,
            stream=stream,
            tools=TOOLS,
            parallel_tool_calls=False,
            tool_choice=choice if choice == "required" else named,
        )
        assert finish == "tool_calls", (number, content, calls)
        assert content == ""
        ((name, arguments),) = calls
        assert choice in ("required", name)
        given = json.loads(arguments)
        if name == "weather":
            assert isinstance(given["city"], str)
            assert 1 <= given["days"] <= 9
            assert given.get("unit") in (None, "celsius", "fahrenheit")
        else:
            assert isinstance(given["code"], str)


def test_a_call_whose_parameters_the_model_forgets_ends_at_its_limit_and_says_so(served: Served):
    """Any string is allowed, even the end of a call without all parameters: it stays text."""
    parameters = {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city", "days"],
    }
    forecast = {"type": "function", "function": {"name": "forecast", "parameters": parameters}}
    finish, _, content, calls = ask(
        served,
        0,
        stream=False,
        tools=[forecast],
        tool_choice={"type": "function", "function": {"name": "forecast"}},
    )
    assert not (content or "").strip()
    ((name, arguments),) = calls
    assert name == "forecast"
    if finish == "tool_calls":
        assert isinstance(json.loads(arguments)["days"], int)
        return
    assert finish == "length"
    with pytest.raises(json.JSONDecodeError):
        json.loads(arguments)


def test_several_structured_choices_are_independent_and_repeat(served: Served):
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}

    def contents() -> list[str | None]:
        answer = served.client.chat.completions.create(
            model=served.model,
            messages=[{"role": "user", "content": "hello"}],
            n=4,
            seed=3,
            max_tokens=600,
            response_format=wanted,
        )
        return [choice.message.content for choice in answer.choices]

    first = contents()
    assert len(set(first)) > 1
    assert contents() == first


@pytest.mark.parametrize("stream", [False, True])
def test_a_schema_that_would_take_forever_is_400_and_hurts_nobody(served: Served, stream: bool):
    hostile = {"allOf": [{"type": "string", "pattern": f".*{c}.*"} for c in "abcdefghijklmnopqrst"]}
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "a", "schema": hostile}}
    with pytest.raises(openai.BadRequestError, match="too much time") as caught:
        ask(served, 0, stream=stream, response_format=wanted)
    assert caught.value.param == "response_format.json_schema.schema"
    finish, _, content, _ = ask(served, 0, stream=stream, response_format={"type": "json_object"})
    assert finish in ("stop", "length")
    assert content.lstrip().startswith("{")
