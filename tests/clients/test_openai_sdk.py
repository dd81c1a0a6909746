"""OpenAI's Python SDK, unmodified, on a scripted model behind the real gateway."""

from pathlib import Path

import pytest

from moe_model.text.tokenizer import Tokenizer
from tests.support.clients import sdks
from tests.support.gateway.harness import Harness
from tests.support.gateway.model import NAME

pytestmark = pytest.mark.timeout(300)

SDK = sdks.Sdk(
    name="openai-sdk",
    requirements=("openai==3.57.0",),
    start="""
import openai
from pydantic import BaseModel

client = openai.OpenAI(base_url=URL + "/v1", api_key=KEY, max_retries=0)
question = "hello"

class Weather(BaseModel):
    place: str
    days: int

def asked():
    return dict(model=MODEL, messages=[{"role": "user", "content": question}])
""",
)


def test_a_stream_is_the_same_answer(gateway: Harness, home: Path, tokenizer: Tokenizer) -> None:
    gateway.script(sdks.text(tokenizer, "hi there"))
    program = """
message = client.chat.completions.create(**asked()).choices[0].message
with client.chat.completions.stream(**asked()) as stream:
    events = [event.type for event in stream]
    final = stream.get_final_completion().choices[0]
print(json.dumps([
    message.content, message.reasoning_content, final.message.content, final.finish_reason,
    "content.done" in events, [model.id for model in client.models.list()],
]))
"""
    told = ["hi there", "hm", "hi there", "stop", True, [NAME, "alias"]]
    assert SDK.run(gateway, home, program) == told


def test_a_tool_loop_ends_and_keeps_the_thinking(
    restoring: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    sdks.script_tool_loop(restoring, tokenizer)
    program = """
messages = asked()["messages"]
tools = [openai.pydantic_function_tool(Weather, name="weather")]
while True:
    message = client.chat.completions.create(model=MODEL, messages=messages, tools=tools)
    message = message.choices[0].message
    messages.append(message)
    if not message.tool_calls:
        break
    for call in message.tool_calls:
        messages.append({"role": "tool", "tool_call_id": call.id, "content": "rain"})
print(json.dumps(message.content))
"""
    assert SDK.run(restoring, home, program) == "it rains"
    sdks.assert_thinking_came_back(restoring, tokenizer, by_the_gateway=False)


def test_structured_outputs_and_forced_calls_are_parsed(
    gateway: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    gateway.script(
        sdks.in_turn(
            sdks.text(tokenizer, '{"place": "Rome", "days": 2}'),
            sdks.call(tokenizer, "Weather", place="Rome", days="2"),
        )
    )
    program = """
whole = client.chat.completions.parse(**asked(), response_format=Weather)
tool = openai.pydantic_function_tool(Weather)
called = client.chat.completions.parse(**asked(), tools=[tool], tool_choice="required")
call = called.choices[0].message.tool_calls[0].function
print(json.dumps([whole.choices[0].message.parsed.days, call.parsed_arguments.days]))
"""
    assert SDK.run(gateway, home, program) == [2, 2]
    assert all(sdks.grammars(gateway))


def test_errors_are_of_the_class_and_code_that_programs_catch(gateway: Harness, home: Path) -> None:
    program = f"""
try:
    client.chat.completions.create(**{{**asked(), "model": "other"}})
except openai.NotFoundError as error:
    told = [error.code, error.request_id is not None]
{sdks.TOO_LONG}
try:
    client.chat.completions.create(**asked())
except openai.BadRequestError as error:
    told.append(error.code)
print(json.dumps(told))
"""
    told = ["model_not_found", True, "context_length_exceeded"]
    assert SDK.run(gateway, home, program) == told


def test_the_responses_api_is_not_there(gateway: Harness, home: Path) -> None:
    program = """
try:
    client.responses.create(model=MODEL, input="hello")
except openai.NotFoundError as error:
    print(json.dumps(error.status_code))
"""
    assert SDK.run(gateway, home, program) == 404
