"""Anthropic's Python SDK, unmodified, on a scripted model behind the real gateway."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from moe_model.text.tokenizer import Tokenizer
from tests.support.clients import environments
from tests.support.gateway.answers import invoke, thinking_answer, tool_answer
from tests.support.gateway.fake_attention import say
from tests.support.gateway.harness import Harness
from tests.support.gateway.model import EOS, NAME

pytestmark = pytest.mark.timeout(300)

PACKAGE = "anthropic==2.14.0"
RUN_S = 60
START = f"""
import json, anthropic
client = anthropic.Anthropic(base_url=URL, api_key="any", max_retries=0)
asked = dict(model="{NAME}", max_tokens=300, messages=[{{"role": "user", "content": "hello"}}])
weather = {{
    "name": "weather",
    "description": "The weather of a place",
    "input_schema": {{"type": "object", "properties": {{"place": {{"type": "string"}}}}}},
}}
"""


@pytest.fixture(scope="session")
def sdk() -> Path:
    return environments.python("anthropic-sdk", PACKAGE)


def run(sdk: Path, gateway: Harness, program: str) -> Any:
    """What the program prints as its last line, as JSON."""
    whole = f"URL = {gateway.base_url!r}\n{START}\n{program}"
    done = subprocess.run(
        [str(sdk), "-c", whole], capture_output=True, text=True, timeout=RUN_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_first_block_is_the_text(sdk: Path, gateway: Harness, tokenizer: Tokenizer) -> None:
    gateway.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
    program = "print(json.dumps(client.messages.create(**asked).content[0].text))"
    assert run(sdk, gateway, program) == "hi"


def test_a_stream_is_the_same_message(sdk: Path, gateway: Harness, tokenizer: Tokenizer) -> None:
    gateway.script(say(thinking_answer(tokenizer, "hm", "hi there"), eos=EOS))
    program = """
thinking = {"type": "enabled", "budget_tokens": 1024}
with client.messages.stream(**asked, thinking=thinking) as stream:
    text = "".join(stream.text_stream)
    final = stream.get_final_message()
whole = client.messages.create(**asked, thinking=thinking)
same = [a.to_dict() == b.to_dict() for a, b in zip(final.content, whole.content, strict=True)]
print(json.dumps([text, final.stop_reason, [b.type for b in final.content], same]))
"""
    assert run(sdk, gateway, program) == [
        "hi there",
        "end_turn",
        ["thinking", "text"],
        [True, True],
    ]


def test_a_tool_loop_ends(sdk: Path, gateway: Harness, tokenizer: Tokenizer) -> None:
    answers = [
        say(tool_answer(tokenizer, invoke("weather", place="Rome")), eos=EOS),
        say(thinking_answer(tokenizer, "well", "it rains"), eos=EOS),
    ]
    gateway.script(lambda request: answers.pop(0)(request))
    program = """
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
    assert run(sdk, gateway, program) == [4, "it rains", []]


def test_it_counts_tokens_lists_models_and_names_errors(
    sdk: Path, gateway: Harness, tokenizer: Tokenizer
) -> None:
    gateway.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
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
print(json.dumps([counted == message.usage.input_tokens, names, one, told]))
"""
    assert run(sdk, gateway, program) == [
        True,
        [NAME, "alias"],
        "model",
        [True, "invalid_request_error", 404],
    ]
