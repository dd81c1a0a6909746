"""pydantic-ai, unmodified, on a scripted model behind the real gateway."""

from pathlib import Path

import pytest

from moe_model.text.tokenizer import Tokenizer
from tests.support.clients import sdks
from tests.support.gateway.harness import Harness

pytestmark = pytest.mark.timeout(300)

SDK = sdks.Sdk(
    name="pydantic-ai",
    requirements=("pydantic-ai-slim[openai]==2.68.0",),
    start="""
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

model = OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=URL + "/v1", api_key=KEY))

class Weather(BaseModel):
    place: str
    days: int

def weather(place: str) -> str:
    "The weather of a place"
    return "rain"
""",
)


def test_a_stream_is_the_same_answer(gateway: Harness, home: Path, tokenizer: Tokenizer) -> None:
    gateway.script(sdks.text(tokenizer, "hi there"))
    program = """
import asyncio

async def both():
    agent = Agent(model)
    whole = await agent.run("hello")
    async with agent.run_stream("hello") as stream:
        return [whole.output, await stream.get_output()]

print(json.dumps(asyncio.run(both())))
"""
    assert SDK.run(gateway, home, program) == ["hi there", "hi there"]


def test_a_tool_loop_ends_and_keeps_the_thinking(
    restoring: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    sdks.script_tool_loop(restoring, tokenizer)
    program = """
agent = Agent(model, tools=[weather])
print(json.dumps(agent.run_sync("The weather in Rome?").output))
"""
    assert SDK.run(restoring, home, program) == "it rains"
    sdks.assert_thinking_came_back(restoring, tokenizer, by_the_gateway=False)


def test_outputs_by_its_default_forced_call_and_by_schema(
    gateway: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    gateway.script(
        sdks.in_turn(
            sdks.call(tokenizer, "final_result", place="Rome", days="2"),
            sdks.text(tokenizer, '{"place": "Rome", "days": 3}'),
        )
    )
    program = """
by_call = Agent(model, output_type=Weather).run_sync("hello").output
by_schema = Agent(model, output_type=NativeOutput(Weather)).run_sync("hello").output
print(json.dumps([by_call.days, by_schema.days]))
"""
    assert SDK.run(gateway, home, program) == [2, 3]
    assert all(sdks.grammars(gateway))


def test_errors_are_understood(gateway: Harness, home: Path) -> None:
    program = f"""
from pydantic_ai.exceptions import ModelHTTPError
{sdks.TOO_LONG}
try:
    Agent(model).run_sync(question)
except ModelHTTPError as error:
    print(json.dumps([error.status_code, error.body["code"]]))
"""
    assert SDK.run(gateway, home, program) == [400, "context_length_exceeded"]
