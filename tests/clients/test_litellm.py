"""LiteLLM, unmodified, on a scripted model behind the real gateway."""

from pathlib import Path

import pytest

from moe_model.text.tokenizer import Tokenizer
from tests.support.clients.frameworks import LITELLM as SDK
from tests.support.clients.scripted import (
    assert_thinking_came_back,
    grammars,
    script_tool_loop,
    text,
)
from tests.support.clients.sdks import at
from tests.support.gateway.harness import Harness

PROVIDERS = pytest.mark.parametrize("provider", ["openai", "hosted_vllm"])


@PROVIDERS
def test_a_stream_is_the_same_answer(
    gateway: Harness, home: Path, tokenizer: Tokenizer, provider: str
) -> None:
    gateway.script(text(tokenizer, "hi there"))
    program = f"""
model = "{provider}/" + MODEL
message = litellm.completion(**asked, model=model).choices[0].message
chunks = litellm.completion(**asked, model=model, stream=True)
streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
print(json.dumps([message.content, message.reasoning_content, streamed]))
"""
    assert SDK.run(at(gateway), home, program) == ["hi there", "hm", "hi there"]


@PROVIDERS
def test_a_tool_loop_ends_and_keeps_the_thinking(
    restoring: Harness, home: Path, tokenizer: Tokenizer, provider: str
) -> None:
    script_tool_loop(restoring, tokenizer)
    program = f"""
properties = {{"place": {{"type": "string"}}}}
parameters = {{"type": "object", "properties": properties}}
tool = {{"type": "function", "function": {{"name": "weather", "parameters": parameters}}}}
messages = asked["messages"]
while True:
    message = litellm.completion(**asked, model="{provider}/" + MODEL, tools=[tool])
    message = message.choices[0].message
    messages.append(message)
    if not message.tool_calls:
        break
    for call in message.tool_calls:
        messages.append({{"role": "tool", "tool_call_id": call.id, "content": "rain"}})
print(json.dumps(message.content))
"""
    assert SDK.run(at(restoring), home, program) == "it rains"
    assert_thinking_came_back(restoring, tokenizer, by_the_gateway=False)


@PROVIDERS
def test_completions_and_json_answers(
    gateway: Harness, home: Path, tokenizer: Tokenizer, provider: str
) -> None:
    gateway.script(text(tokenizer, '{"days": 2}'))
    program = f"""
model = "{provider}/" + MODEL
schema = {{"type": "object", "properties": {{"days": {{"type": "integer"}}}}}}
form = {{"type": "json_schema", "json_schema": {{"name": "a", "schema": schema}}}}
whole = litellm.completion(**asked, model=model, response_format=form)
plain = litellm.text_completion(**place, model=model, prompt="one", max_tokens=4)
print(json.dumps([json.loads(whole.choices[0].message.content)["days"], len(plain.choices)]))
"""
    assert SDK.run(at(gateway), home, program) == [2, 1]
    assert [bool(grammar) for grammar in grammars(gateway)] == [True, False]


def test_it_speaks_messages_to_the_gateway(
    gateway: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    """By its own Messages, by chat over them, and by Messages over chat; each counts the prompt."""
    gateway.script(text(tokenizer, "hi there"))
    program = """
asked.pop("num_retries")

def messages(**fields):
    return asyncio.run(litellm.anthropic.messages.acreate(**{**asked, "max_tokens": 300, **fields}))

direct = messages(model="anthropic/" + MODEL, api_base=URL)
bridged = messages(model="hosted_vllm/" + MODEL)
chat = litellm.completion(**{**asked, "model": "anthropic/" + MODEL, "api_base": URL})
texts = [
    block["text"] for answer in (direct, bridged) for block in answer["content"]
    if block["type"] == "text"
]
print(json.dumps([*texts, chat.choices[0].message.content, chat.usage.prompt_tokens]))
"""
    told = SDK.run(at(gateway), home, program)
    assert told == [*["hi there"] * 3, len(gateway.fake.requests[2].prompt_token_ids)]


@PROVIDERS
def test_errors_are_of_its_own_classes(gateway: Harness, home: Path, provider: str) -> None:
    program = f"""
told = []
def fail(model, question):
    try:
        messages = [{{"role": "user", "content": question}}]
        litellm.completion(**place, model="{provider}/" + model, messages=messages)
    except Exception as error:
        told.append(type(error).__name__)
fail(MODEL, "y " * 300_000)
fail("other", "hello")
print(json.dumps(told))
"""
    assert SDK.run(at(gateway), home, program) == ["ContextWindowExceededError", "NotFoundError"]
