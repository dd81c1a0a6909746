"""LlamaIndex, unmodified, on a scripted model behind the real gateway."""

from pathlib import Path

import pytest

from moe_model.text.tokenizer import Tokenizer
from tests.support.clients import sdks
from tests.support.gateway.harness import Harness

pytestmark = pytest.mark.timeout(300)

SDK = sdks.Sdk(
    name="llama-index",
    requirements=("llama-index-llms-openai-like==0.8.1",),
    start="""
import asyncio
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

place = dict(model=MODEL, api_base=URL + "/v1", api_key=KEY, max_retries=0)
model = OpenAILike(
    **place, is_chat_model=True, is_function_calling_model=True, context_window=400_000
)
asked = [ChatMessage(role="user", content="hello")]

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
streamed = "".join(part.delta or "" for part in model.stream_chat(asked))
print(json.dumps([model.chat(asked).message.content, streamed]))
"""
    assert SDK.run(gateway, home, program) == ["hi there", "hi there"]


def test_the_loop_of_its_function_agent_ends(
    restoring: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    sdks.script_tool_loop(restoring, tokenizer)
    program = """
async def ask():
    agent = FunctionAgent(tools=[weather], llm=model)
    return str(await agent.run("The weather in Rome?"))

print(json.dumps(asyncio.run(ask())))
"""
    assert SDK.run(restoring, home, program) == "it rains"
    sdks.assert_thinking_came_back(restoring, tokenizer, by_the_gateway=True)


def test_structured_output_by_its_default_forced_call(
    gateway: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    gateway.script(sdks.call(tokenizer, "Weather", place="Rome", days="2"))
    program = """
print(json.dumps(model.as_structured_llm(Weather).chat(asked).raw.days))
"""
    assert SDK.run(gateway, home, program) == 2
    assert all(sdks.grammars(gateway))


def test_errors_are_understood(gateway: Harness, home: Path) -> None:
    program = f"""
import openai
{sdks.TOO_LONG}
try:
    model.chat([ChatMessage(role="user", content=question)])
except openai.BadRequestError as error:
    print(json.dumps(error.code))
"""
    assert SDK.run(gateway, home, program) == "context_length_exceeded"
