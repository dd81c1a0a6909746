"""The OpenAI Agents SDK, unmodified, on a scripted model behind the real gateway."""

from pathlib import Path

import pytest

from moe_model.text.tokenizer import Tokenizer
from tests.support.clients import sdks
from tests.support.gateway.harness import Harness

pytestmark = pytest.mark.timeout(300)

SDK = sdks.Sdk(
    name="openai-agents",
    requirements=("openai-agents==0.24.0",),
    start="""
import asyncio
import openai
from agents import Agent, OpenAIChatCompletionsModel, Runner, function_tool, set_tracing_disabled
from pydantic import BaseModel

set_tracing_disabled(True)
client = openai.AsyncOpenAI(base_url=URL + "/v1", api_key=KEY, max_retries=0)
model = OpenAIChatCompletionsModel(model=MODEL, openai_client=client)

class Weather(BaseModel):
    place: str
    days: int

@function_tool
def weather(place: str) -> str:
    "The weather of a place"
    return "rain"
""",
)


def test_a_stream_is_the_same_answer(gateway: Harness, home: Path, tokenizer: Tokenizer) -> None:
    gateway.script(sdks.text(tokenizer, "hi there"))
    program = """
agent = Agent(name="a", model=model)

async def streamed():
    result = Runner.run_streamed(agent, "hello")
    async for event in result.stream_events():
        pass
    return result.final_output

async def both():
    return [(await Runner.run(agent, "hello")).final_output, await streamed()]

print(json.dumps(asyncio.run(both())))
"""
    assert SDK.run(gateway, home, program) == ["hi there", "hi there"]


def test_a_tool_loop_ends(restoring: Harness, home: Path, tokenizer: Tokenizer) -> None:
    sdks.script_tool_loop(restoring, tokenizer)
    program = """
agent = Agent(name="a", model=model, tools=[weather])
print(json.dumps(Runner.run_sync(agent, "The weather in Rome?").final_output))
"""
    assert SDK.run(restoring, home, program) == "it rains"
    sdks.assert_thinking_came_back(restoring, tokenizer, by_the_gateway=True)


def test_output_types_are_held_to_their_schema(
    gateway: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    gateway.script(sdks.text(tokenizer, '{"place": "Rome", "days": 2}'))
    program = """
agent = Agent(name="a", model=model, output_type=Weather)
print(json.dumps(Runner.run_sync(agent, "hello").final_output.days))
"""
    assert SDK.run(gateway, home, program) == 2
    assert all(sdks.grammars(gateway))


def test_errors_are_understood(gateway: Harness, home: Path) -> None:
    program = f"""
{sdks.TOO_LONG}
try:
    Runner.run_sync(Agent(name="a", model=model), question)
except openai.BadRequestError as error:
    print(json.dumps(error.code))
"""
    assert SDK.run(gateway, home, program) == "context_length_exceeded"
