"""OpenAI's Python SDK, unmodified, on a scripted model behind the real gateway."""

from pathlib import Path

from moe_model.text.tokenizer import Tokenizer
from tests.support.clients.frameworks import OPENAI as SDK
from tests.support.clients.scripted import (
    assert_thinking_came_back,
    call,
    grammars,
    script_tool_loop,
    text,
)
from tests.support.clients.sdks import TOO_LONG, at
from tests.support.gateway.fake_attention import in_turn
from tests.support.gateway.harness import Harness
from tests.support.gateway.model import NAME


def test_a_stream_is_the_same_answer(gateway: Harness, home: Path, tokenizer: Tokenizer) -> None:
    gateway.script(text(tokenizer, "hi there"))
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
    assert SDK.run(at(gateway), home, program) == told


def test_a_tool_loop_ends_and_keeps_the_thinking(
    restoring: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    script_tool_loop(restoring, tokenizer)
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
    assert SDK.run(at(restoring), home, program) == "it rains"
    assert_thinking_came_back(restoring, tokenizer, by_the_gateway=False)


def test_structured_outputs_and_forced_calls_are_parsed(
    gateway: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    gateway.script(
        in_turn(
            text(tokenizer, '{"place": "Rome", "days": 2}'),
            call(tokenizer, "Weather", place="Rome", days="2"),
        )
    )
    program = """
whole = client.chat.completions.parse(**asked(), response_format=Weather)
tool = openai.pydantic_function_tool(Weather)
called = client.chat.completions.parse(**asked(), tools=[tool], tool_choice="required")
call = called.choices[0].message.tool_calls[0].function
print(json.dumps([whole.choices[0].message.parsed.days, call.parsed_arguments.days]))
"""
    assert SDK.run(at(gateway), home, program) == [2, 2]
    assert all(grammars(gateway))


def test_errors_are_of_the_class_and_code_that_programs_catch(gateway: Harness, home: Path) -> None:
    program = f"""
try:
    client.chat.completions.create(**{{**asked(), "model": "other"}})
except openai.NotFoundError as error:
    told = [error.code, error.request_id is not None]
{TOO_LONG}
try:
    client.chat.completions.create(**asked())
except openai.BadRequestError as error:
    told.append(error.code)
print(json.dumps(told))
"""
    told = ["model_not_found", True, "context_length_exceeded"]
    assert SDK.run(at(gateway), home, program) == told


def test_all_that_programs_ask_beside_the_messages_is_taken(
    gateway: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    gateway.script(text(tokenizer, "hi there"))
    program = """
import asyncio

beside = dict(
    reasoning_effort="low", store=True, metadata={"a": "b"}, user="me", service_tier="auto",
    verbosity="low", prompt_cache_key="k", safety_identifier="s", seed=1, stop=["END"],
    max_completion_tokens=200, temperature=0.5, extra_body={"priority": 1, "thinking": {}},
)
raw = client.chat.completions.with_raw_response.create(**asked(), **beside)
three = client.chat.completions.create(**asked(), n=3, logprobs=True, top_logprobs=2).choices
prompts = client.completions.create(model=MODEL, prompt=["one", "two"], echo=True, max_tokens=4)

async def four_at_once():
    many = openai.AsyncOpenAI(base_url=URL + "/v1", api_key=KEY, max_retries=0)
    answers = await asyncio.gather(*(many.chat.completions.create(**asked()) for _ in range(4)))
    return {answer.choices[0].message.content for answer in answers}

print(json.dumps([
    raw.parse().choices[0].message.content, bool(raw.headers["x-request-id"]),
    [choice.message.content for choice in three], len(three[0].logprobs.content[0].top_logprobs),
    [choice.text[:3] for choice in prompts.choices], list(asyncio.run(four_at_once())),
]))
"""
    told = ["hi there", True, ["hi there"] * 3, 2, ["one", "two"], ["hi there"]]
    assert SDK.run(at(gateway), home, program) == told
