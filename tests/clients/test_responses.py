"""Clients of the Responses API, unmodified, on a scripted model behind the real gateway."""

from pathlib import Path

import pytest

from moe_model.text.tokenizer import Tokenizer
from tests.support.clients.frameworks import LITELLM, OPENAI, OPENAI_AGENTS
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

ASKED = """
def asked():
    return dict(model=MODEL, input=question)
"""
AGENT = """
from agents import set_default_openai_client

set_default_openai_client(client, use_for_tracing=False)
"""


def test_the_sdks_stream_is_the_same_answer(
    gateway: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    gateway.script(text(tokenizer, "hi there"))
    program = """
whole = client.responses.create(**asked())
with client.responses.stream(**asked()) as stream:
    kinds = [event.type for event in stream]
    final = stream.get_final_response()
raw = client.responses.create(**asked(), stream=True)
deltas = [event.delta for event in raw if event.type == "response.output_text.delta"]
thinking = [item.content[0].text for item in final.output if item.type == "reasoning"]
print(json.dumps([
    whole.output_text, final.output_text, "".join(deltas), thinking, kinds[0], kinds[-1],
    final.usage.output_tokens > 0,
]))
"""
    told = ["hi there"] * 3 + [["hm"], "response.created", "response.completed", True]
    assert OPENAI.run(at(gateway), home, ASKED + program) == told


def test_the_sdk_parses_outputs_and_calls(
    gateway: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    gateway.script(
        in_turn(
            text(tokenizer, '{"place": "Rome", "days": 2}'),
            call(tokenizer, "Weather", place="Rome", days="2"),
        )
    )
    program = """
whole = client.responses.parse(**asked(), text_format=Weather)
tool = openai.pydantic_function_tool(Weather)["function"]
called = client.responses.parse(
    **asked(), tools=[{"type": "function", **tool}], tool_choice="required"
)
(call,) = [item for item in called.output if item.type == "function_call"]
print(json.dumps([whole.output_parsed.days, call.parsed_arguments["days"]]))
"""
    assert OPENAI.run(at(gateway), home, ASKED + program) == [2, 2]
    assert all(grammars(gateway))


@pytest.mark.parametrize("keeps", ["items", "encrypted"])
def test_a_tool_loop_ends_and_keeps_the_thinking(
    restoring: Harness, home: Path, tokenizer: Tokenizer, keeps: str
) -> None:
    """As text, and as clients have it that keep nothing but what is encrypted."""
    script_tool_loop(restoring, tokenizer)
    program = f"""
def kept(item):
    item = item.to_dict()
    if {keeps!r} == "encrypted" and item["type"] == "reasoning":
        del item["content"]
    return item

parameters = {{"type": "object", "properties": {{"place": {{"type": "string"}}}}}}
tool = {{"type": "function", "name": "weather", "parameters": parameters, "strict": False}}
items = [{{"role": "user", "content": question}}]
while True:
    response = client.responses.create(
        model=MODEL, input=items, tools=[tool], store=False,
        include=["reasoning.encrypted_content"],
    )
    items += map(kept, response.output)
    calls = [item for item in response.output if item.type == "function_call"]
    if not calls:
        break
    for call in calls:
        items.append({{"type": "function_call_output", "call_id": call.call_id, "output": "rain"}})
print(json.dumps(response.output_text))
"""
    assert OPENAI.run(at(restoring), home, ASKED + program) == "it rains"
    assert_thinking_came_back(restoring, tokenizer, by_the_gateway=False)


def test_the_sdk_counts_tokens_and_knows_the_errors(
    gateway: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    program = f"""
told = [client.responses.input_tokens.count(**asked()).input_tokens > 0]
try:
    client.responses.create(**{{**asked(), "model": "other"}})
except openai.NotFoundError as error:
    told += [error.code, error.request_id is not None]
{TOO_LONG}
try:
    client.responses.create(**asked())
except openai.BadRequestError as error:
    told.append(error.code)
print(json.dumps(told))
"""
    told = [True, "model_not_found", True, "context_length_exceeded"]
    assert OPENAI.run(at(gateway), home, ASKED + program) == told


def test_the_agents_sdk_runs_as_it_comes(
    restoring: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    script_tool_loop(restoring, tokenizer)
    program = """
@function_tool
def weather(place: str) -> str:
    "The weather of a place"
    return "rain"

agent = Agent(name="a", model=MODEL, tools=[weather])
print(json.dumps(Runner.run_sync(agent, "The weather in Rome?").final_output))
"""
    assert OPENAI_AGENTS.run(at(restoring), home, AGENT + program) == "it rains"
    assert_thinking_came_back(restoring, tokenizer, by_the_gateway=False)


def test_the_agents_sdk_streams(gateway: Harness, home: Path, tokenizer: Tokenizer) -> None:
    gateway.script(text(tokenizer, "hi there"))
    program = """
agent = Agent(name="a", model=MODEL)
print(json.dumps(asyncio.run(streamed(agent, "hello"))))
"""
    assert OPENAI_AGENTS.run(at(gateway), home, AGENT + program) == "hi there"


@pytest.mark.parametrize("provider", ["openai", "hosted_vllm"])
def test_litellm_speaks_responses(
    gateway: Harness, home: Path, tokenizer: Tokenizer, provider: str
) -> None:
    gateway.script(text(tokenizer, "hi there"))
    program = f"""
response = litellm.responses(**place, model="{provider}/" + MODEL, input="hello")
texts = [item.content[0].text for item in response.output if item.type == "message"]
print(json.dumps(texts))
"""
    assert LITELLM.run(at(gateway), home, program) == ["hi there"]


def test_litellm_translates_messages_to_it(
    gateway: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    gateway.script(text(tokenizer, "hi there"))
    program = """
messages = [{"role": "user", "content": "hello"}]
place.pop("num_retries")
asked = dict(place, model="openai/" + MODEL, messages=messages, max_tokens=300)
message = asyncio.run(litellm.anthropic.messages.acreate(**asked))
print(json.dumps([block["text"] for block in message["content"] if block["type"] == "text"]))
"""
    assert LITELLM.run(at(gateway), home, program) == ["hi there"]
    assert 'api="responses",outcome="ok"} 1.0' in gateway.get("/metrics").text
