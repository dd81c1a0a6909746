"""LiteLLM, unmodified, on a scripted model behind the real gateway."""

from pathlib import Path

import pytest

from moe_model.text.tokenizer import Tokenizer
from tests.support.clients import sdks
from tests.support.gateway.harness import Harness

pytestmark = pytest.mark.timeout(300)

SDK = sdks.Sdk(
    name="litellm",
    requirements=("litellm==1.108.7",),
    variables={"LITELLM_LOCAL_MODEL_COST_MAP": "True"},
    start="""
import asyncio
import litellm

place = dict(api_base=URL + "/v1", api_key=KEY, num_retries=0)
asked = dict(place, messages=[{"role": "user", "content": "hello"}])
""",
)
PROVIDERS = pytest.mark.parametrize("provider", ["openai", "hosted_vllm"])


@PROVIDERS
def test_a_stream_is_the_same_answer(
    gateway: Harness, home: Path, tokenizer: Tokenizer, provider: str
) -> None:
    gateway.script(sdks.text(tokenizer, "hi there"))
    program = f"""
model = "{provider}/" + MODEL
message = litellm.completion(**asked, model=model).choices[0].message
chunks = litellm.completion(**asked, model=model, stream=True)
streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
print(json.dumps([message.content, message.reasoning_content, streamed]))
"""
    assert SDK.run(gateway, home, program) == ["hi there", "hm", "hi there"]


@PROVIDERS
def test_a_tool_loop_ends_and_keeps_the_thinking(
    restoring: Harness, home: Path, tokenizer: Tokenizer, provider: str
) -> None:
    sdks.script_tool_loop(restoring, tokenizer)
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
    assert SDK.run(restoring, home, program) == "it rains"
    sdks.assert_thinking_came_back(restoring, tokenizer, by_the_gateway=False)


def test_it_speaks_messages_to_the_gateway(
    gateway: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    gateway.script(sdks.text(tokenizer, "hi there"))
    program = """
asked.update(model="anthropic/" + MODEL, api_base=URL, max_tokens=300)
asked.pop("num_retries")
message = asyncio.run(litellm.anthropic.messages.acreate(**asked))
print(json.dumps([block["text"] for block in message["content"] if block["type"] == "text"]))
"""
    assert SDK.run(gateway, home, program) == ["hi there"]


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
    assert SDK.run(gateway, home, program) == ["ContextWindowExceededError", "NotFoundError"]
