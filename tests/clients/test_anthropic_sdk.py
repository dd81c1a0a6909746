"""Anthropic's Python SDK, unmodified, on a scripted model behind the real gateway."""

from pathlib import Path

from moe_model.text.tokenizer import Tokenizer
from tests.support.clients.frameworks import ANTHROPIC as SDK
from tests.support.clients.scripted import script_tool_loop, text
from tests.support.clients.sdks import at
from tests.support.gateway.harness import Harness
from tests.support.gateway.model import NAME


def test_the_first_block_is_the_text(gateway: Harness, home: Path, tokenizer: Tokenizer) -> None:
    gateway.script(text(tokenizer, "hi"))
    program = "print(json.dumps(client.messages.create(**asked).content[0].text))"
    assert SDK.run(at(gateway), home, program) == "hi"


def test_a_stream_is_the_same_message(gateway: Harness, home: Path, tokenizer: Tokenizer) -> None:
    gateway.script(text(tokenizer, "hi there"))
    program = """
thinking = {"type": "enabled", "budget_tokens": 1024}
with client.messages.stream(**asked, thinking=thinking) as stream:
    text = "".join(stream.text_stream)
    final = stream.get_final_message()
whole = client.messages.create(**asked, thinking=thinking)
same = [a.to_dict() == b.to_dict() for a, b in zip(final.content, whole.content, strict=True)]
print(json.dumps([text, final.stop_reason, [b.type for b in final.content], same]))
"""
    assert SDK.run(at(gateway), home, program) == [
        "hi there",
        "end_turn",
        ["thinking", "text"],
        [True, True],
    ]


def test_a_tool_loop_ends(gateway: Harness, home: Path, tokenizer: Tokenizer) -> None:
    script_tool_loop(gateway, tokenizer)
    program = """
place = {"type": "object", "properties": {"place": {"type": "string"}}}
weather = {"name": "weather", "description": "The weather of a place", "input_schema": place}
turns = asked["messages"]
while True:
    message = client.messages.create(**asked, tools=[weather])
    turns.append({"role": "assistant", "content": message.content})
    calls = [block for block in message.content if block.type == "tool_use"]
    if not calls:
        break
    results = [{"type": "tool_result", "tool_use_id": c.id, "content": "rain"} for c in calls]
    turns.append({"role": "user", "content": results})
print(json.dumps([len(turns), message.content[0].text, calls]))
"""
    assert SDK.run(at(gateway), home, program) == [4, "it rains", []]


def test_it_counts_tokens_lists_models_and_names_errors(
    gateway: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    gateway.script(text(tokenizer, "hi"))
    program = """
message = client.messages.create(**asked)
asked.pop("max_tokens")
counted = client.messages.count_tokens(**asked).input_tokens
names = [model.id for model in client.models.list()]
one = client.models.retrieve(names[0]).type
try:
    client.messages.create(**asked, max_tokens=0)
except anthropic.BadRequestError as error:
    told = [error.request_id is not None, error.body["error"]["type"]]
try:
    client.messages.create(**{**asked, "model": "other"}, max_tokens=1)
except anthropic.NotFoundError as error:
    told.append(error.status_code)
try:
    client.messages.batches.list()
except anthropic.NotFoundError as error:
    told += [error.body["type"], error.body["error"]["type"]]
print(json.dumps([counted == message.usage.input_tokens, names, one, told]))
"""
    assert SDK.run(at(gateway), home, program) == [
        True,
        [NAME, "alias"],
        "model",
        [True, "invalid_request_error", 404, "error", "not_found_error"],
    ]
