"""OpenAI's and Anthropic's libraries, unmodified, on the demonstration model.

`make test-clients` runs these and the others by their versions; this is the short form of it.
"""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.support.served_model import Served, serve

pytestmark = pytest.mark.slow
anthropic = pytest.importorskip("anthropic")  # in the extra `test` since this file is

SUM = "What is 4783 + 2959?"
PRODUCT, ITS_ANSWER = "What is 123456 × 654321?", str(123456 * 654321)
PYTHON = "python_executor"
CODE = {"type": "object", "properties": {"code": {"type": "string"}}, "required": ["code"]}


class Sum(BaseModel):
    a: int
    sum: int


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    yield from serve(tmp_path_factory.mktemp("state") / "epoch", "--restore-thinking", "always")


@pytest.fixture(scope="module")
def claude(served: Served) -> Any:
    return anthropic.Anthropic(base_url=served.url, api_key="none", max_retries=0)


def chat(served: Served, question: str = SUM, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": question}]
    return {"model": served.model, "messages": messages, "temperature": 0, **fields}


def message(served: Served, question: str = SUM, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": question}]
    exact = {"temperature": 0}  # no argument of its own any more
    return {
        "model": served.model,
        "messages": messages,
        "max_tokens": 400,
        "extra_body": exact,
        **fields,
    }


class TestOpenai:
    def test_the_stream_helper_ends_with_the_same_message(self, served: Served) -> None:
        completions = served.client.chat.completions
        whole = completions.create(**chat(served)).choices[0]
        with completions.stream(**chat(served)) as stream:
            events = {event.type for event in stream}
            last = stream.get_final_completion().choices[0]
        assert "7742" in (whole.message.content or "")
        assert last.message.content == whole.message.content
        assert last.finish_reason == whole.finish_reason == "stop"
        assert "content.done" in events

    def test_answers_are_parsed_into_a_model(self, served: Served) -> None:
        question = 'What is 47 + 58? Answer as JSON with the keys "a" and "sum".'
        asked = chat(served, question, response_format=Sum)
        parsed = served.client.chat.completions.parse(**asked).choices[0].message.parsed
        assert parsed == Sum(a=47, sum=105)

    @pytest.mark.parametrize("keeps_thinking", [True, False])
    def test_a_tool_loop_ends(self, served: Served, keeps_thinking: bool) -> None:
        """Also when the program sends back only what OpenAI's own models have."""
        function = {"name": PYTHON, "description": "Run Python code.", "parameters": CODE}
        asked = chat(served, PRODUCT, tools=[{"type": "function", "function": function}])
        for _ in range(3):
            answer = served.client.chat.completions.create(**asked).choices[0].message
            if not answer.tool_calls:
                break
            fields = answer.model_dump(exclude_none=True)
            if not keeps_thinking:
                del fields["reasoning_content"]
            asked["messages"].append(fields)
            for call in answer.tool_calls:
                assert "123456" in json.loads(call.function.arguments)["code"]
                result = {"role": "tool", "tool_call_id": call.id, "content": ITS_ANSWER}
                asked["messages"].append(result)
        assert len(asked["messages"]) == 3
        assert ITS_ANSWER in (answer.content or "")

    def test_errors_are_of_its_classes(self, served: Served) -> None:
        create = served.client.chat.completions.create
        with pytest.raises(openai.NotFoundError) as unknown:
            create(**chat(served, model="other"))
        assert unknown.value.code == "model_not_found"
        with pytest.raises(openai.BadRequestError) as too_long:
            create(**chat(served, "12 + 30 " * 20_000))
        assert too_long.value.code == "context_length_exceeded"


class TestAnthropic:
    def test_a_stream_is_the_same_message(self, served: Served, claude: Any) -> None:
        asked = message(served, thinking={"type": "enabled", "budget_tokens": 1024})
        whole = claude.messages.create(**asked)
        with claude.messages.stream(**asked) as stream:
            text = "".join(stream.text_stream)
            last = stream.get_final_message()
        assert "7742" in text
        assert [block.type for block in last.content] == ["thinking", "text"]
        assert [b.to_dict() for b in last.content] == [b.to_dict() for b in whole.content]
        assert last.stop_reason == whole.stop_reason == "end_turn"

    def test_a_tool_loop_ends(self, served: Served, claude: Any) -> None:
        tool = {"name": PYTHON, "description": "Run Python code.", "input_schema": CODE}
        asked = message(served, PRODUCT, tools=[tool])
        for _ in range(3):
            answer = claude.messages.create(**asked)
            asked["messages"].append({"role": "assistant", "content": answer.content})
            calls = [block for block in answer.content if block.type == "tool_use"]
            if not calls:
                break
            results = [
                {"type": "tool_result", "tool_use_id": call.id, "content": ITS_ANSWER}
                for call in calls
            ]
            asked["messages"].append({"role": "user", "content": results})
        assert len(asked["messages"]) == 4
        assert ITS_ANSWER in answer.content[0].text

    def test_counted_tokens_are_those_of_the_usage(self, served: Served, claude: Any) -> None:
        """What the prefix cache has is counted apart, and nothing costs more for going into it."""
        asked = message(served, "Sort these numbers: " + "42, 7, 130, 88, 19, " * 20)
        counted = claude.messages.count_tokens(model=asked["model"], messages=asked["messages"])
        first, second = (claude.messages.create(**asked).usage for _ in range(2))
        assert first.input_tokens == counted.input_tokens
        assert second.cache_read_input_tokens
        assert second.input_tokens + second.cache_read_input_tokens == counted.input_tokens
        assert first.cache_creation_input_tokens == second.cache_creation_input_tokens == 0

    def test_models_and_errors_are_of_its_classes(self, served: Served, claude: Any) -> None:
        assert [model.id for model in claude.models.list()] == [served.model]
        with pytest.raises(anthropic.NotFoundError) as unknown:
            claude.messages.create(**message(served, model="other"))
        assert unknown.value.request_id
        with pytest.raises(anthropic.BadRequestError, match="prompt is too long: "):
            claude.messages.create(**message(served, "12 + 30 " * 20_000))
