"""pydantic-ai, unmodified, on a scripted model behind the real gateway."""

from pathlib import Path

from moe_model.text.tokenizer import Tokenizer
from tests.support.clients.frameworks import PYDANTIC_AI as SDK
from tests.support.clients.scripted import (
    WEATHER,
    assert_thinking_came_back,
    call,
    grammars,
    script_tool_loop,
    text,
)
from tests.support.clients.sdks import TOO_LONG, at
from tests.support.gateway.fake_attention import in_turn
from tests.support.gateway.harness import Harness


def test_a_stream_is_the_same_answer(gateway: Harness, home: Path, tokenizer: Tokenizer) -> None:
    gateway.script(text(tokenizer, "hi there"))
    program = """
import asyncio

async def both():
    agent = Agent(model)
    whole = await agent.run("hello")
    async with agent.run_stream("hello") as stream:
        return [whole.output, await stream.get_output()]

print(json.dumps(asyncio.run(both())))
"""
    assert SDK.run(at(gateway), home, program) == ["hi there", "hi there"]


def test_outputs_by_its_default_forced_call_and_by_schema(
    gateway: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    gateway.script(
        in_turn(
            call(tokenizer, "final_result", place="Rome", days="2"),
            text(tokenizer, '{"place": "Rome", "days": 3}'),
            text(tokenizer, '{"place": "Rome", "days": 4}'),
        )
    )
    program = """
by_call = Agent(model, output_type=Weather).run_sync("hello").output
by_schema = Agent(model, output_type=NativeOutput(Weather)).run_sync("hello").output
by_prompt = Agent(model, output_type=PromptedOutput(Weather)).run_sync("hello").output
print(json.dumps([by_call.days, by_schema.days, by_prompt.days]))
"""
    assert SDK.run(at(gateway), home, program) == [2, 3, 4]
    assert all(grammars(gateway))


RESPONSES = """
from pydantic_ai.models.openai import OpenAIResponsesModel

model = OpenAIResponsesModel(MODEL, provider=OpenAIProvider(base_url=URL + "/v1", api_key=KEY))
"""


def test_its_class_for_responses_is_answered_too(
    gateway: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    gateway.script(
        in_turn(
            text(tokenizer, "hi there"),
            text(tokenizer, "hi there"),
            call(tokenizer, "final_result", place="Rome", days="2"),
            text(tokenizer, '{"place": "Rome", "days": 3}'),
        )
    )
    program = f"""
import asyncio
{RESPONSES}
async def all():
    agent = Agent(model)
    whole = await agent.run("hello")
    async with agent.run_stream("hello") as stream:
        streamed = await stream.get_output()
    by_call = await Agent(model, output_type=Weather).run("hello")
    by_schema = await Agent(model, output_type=NativeOutput(Weather)).run("hello")
    return [whole.output, streamed, by_call.output.days, by_schema.output.days]

print(json.dumps(asyncio.run(all())))
"""
    assert SDK.run(at(gateway), home, program) == ["hi there", "hi there", 2, 3]
    assert [bool(grammar) for grammar in grammars(gateway)] == [False, False, True, True]


def test_its_tool_loop_over_responses_returns_the_thinking(
    restoring: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    script_tool_loop(restoring, tokenizer)
    program = f"""
{RESPONSES}
{WEATHER.python}
agent = Agent(model, tools=[weather])
print(json.dumps(agent.run_sync({WEATHER.question!r}).output))
"""
    assert SDK.run(at(restoring), home, program) == "it rains"
    assert_thinking_came_back(restoring, tokenizer, by_the_gateway=False)


def test_errors_are_understood(gateway: Harness, home: Path) -> None:
    program = f"""
from pydantic_ai.exceptions import ModelHTTPError
{TOO_LONG}
try:
    Agent(model).run_sync(question)
except ModelHTTPError as error:
    print(json.dumps([error.status_code, error.body["code"]]))
"""
    assert SDK.run(at(gateway), home, program) == [400, "context_length_exceeded"]
