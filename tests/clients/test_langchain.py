"""LangChain, unmodified, on a scripted model behind the real gateway."""

from pathlib import Path

import pytest

from moe_model.text.tokenizer import Tokenizer
from tests.support.clients import sdks
from tests.support.gateway.harness import Harness

pytestmark = pytest.mark.timeout(300)

SDK = sdks.Sdk(
    name="langchain",
    requirements=("langchain==1.5.2", "langchain-openai==1.7.4"),
    start="""
import openai
from langchain.agents import create_agent
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

model = ChatOpenAI(base_url=URL + "/v1", api_key=KEY, model=MODEL, max_retries=0)

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
whole = model.invoke("hello")
streamed = "".join(chunk.text for chunk in model.stream("hello"))
print(json.dumps([whole.text, streamed, whole.response_metadata["finish_reason"]]))
"""
    assert SDK.run(gateway, home, program) == ["hi there", "hi there", "stop"]


@pytest.mark.parametrize("streamed", [False, True])
def test_the_loop_of_create_agent_ends(
    restoring: Harness, home: Path, tokenizer: Tokenizer, streamed: bool
) -> None:
    sdks.script_tool_loop(restoring, tokenizer)
    program = """
agent = create_agent(model, [weather])
question = {"messages": [("user", "The weather in Rome?")]}
"""
    program += (
        "last = [part for part, _ in agent.stream(question, stream_mode='messages')]\n"
        "print(json.dumps(''.join(m.text for m in last if m.type == 'AIMessageChunk')))"
        if streamed
        else "print(json.dumps(agent.invoke(question)['messages'][-1].text))"
    )
    assert SDK.run(restoring, home, program) == "it rains"
    sdks.assert_thinking_came_back(restoring, tokenizer, by_the_gateway=True)


def test_structured_output_by_schema_and_by_a_forced_call(
    gateway: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    gateway.script(
        sdks.in_turn(
            sdks.text(tokenizer, '{"place": "Rome", "days": 2}'),
            sdks.call(tokenizer, "Weather", place="Rome", days="3"),
        )
    )
    program = """
by_schema = model.with_structured_output(Weather).invoke("hello")
by_call = model.with_structured_output(Weather, method="function_calling").invoke("hello")
print(json.dumps([by_schema.days, by_call.days]))
"""
    assert SDK.run(gateway, home, program) == [2, 3]
    assert all(sdks.grammars(gateway))


def test_errors_are_understood(gateway: Harness, home: Path) -> None:
    program = f"""
from langchain_core.exceptions import ContextOverflowError
{sdks.TOO_LONG}
try:
    model.invoke(question)
except ContextOverflowError as error:
    told = [error.code]
try:
    ChatOpenAI(base_url=URL + "/v1", api_key=KEY, model="other").invoke("hello")
except openai.NotFoundError as error:
    told.append(error.code)
print(json.dumps(told))
"""
    told = ["context_length_exceeded", "model_not_found"]
    assert SDK.run(gateway, home, program) == told
