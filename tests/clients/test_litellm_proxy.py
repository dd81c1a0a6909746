"""LiteLLM's proxy, unmodified, between its clients and the real gateway with a scripted model."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from moe_model.text.tokenizer import Tokenizer
from tests.support.clients.claude_code import ask
from tests.support.clients.frameworks import ANTHROPIC, OPENAI
from tests.support.clients.litellm_proxy import PROVIDERS, litellm_proxy
from tests.support.clients.litellm_proxy import at as behind
from tests.support.clients.scripted import (
    CONTEXT,
    assert_the_loop_continued,
    script_tool_loop,
    text,
)
from tests.support.clients.sdks import TOO_LONG, Place, at
from tests.support.gateway.answers import invoke, tool_answer
from tests.support.gateway.fake_attention import in_turn, say
from tests.support.gateway.harness import Harness, LoopThread, ready_status
from tests.support.gateway.model import EOS

EACH = pytest.mark.parametrize("provider", PROVIDERS)


@pytest.fixture(scope="module")
def gateway(model_folder: Path) -> Iterator[Harness]:
    """One for all tests, as the proxy is, which takes long to start."""
    loop = LoopThread()
    status = ready_status(CONTEXT)
    harness = Harness(loop, model_folder, status=status, restore_thinking="always")
    yield harness
    harness.close()
    loop.close()


@pytest.fixture(scope="module")
def url(gateway: Harness, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with litellm_proxy(at(gateway), tmp_path_factory.mktemp("proxy")) as url:
        yield url


@pytest.fixture
def place(gateway: Harness, url: str, provider: str) -> Place:
    gateway.fake.requests.clear()
    return behind(url, provider)


@EACH
def test_chat(place: Place, gateway: Harness, home: Path, tokenizer: Tokenizer) -> None:
    gateway.script(text(tokenizer, "hi there"))
    program = """
message = client.chat.completions.create(**asked()).choices[0].message
chunks = client.chat.completions.create(**asked(), stream=True)
streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
thinking = getattr(message, "reasoning_content", None)
print(json.dumps([message.content, thinking, streamed]))
"""
    # Over Messages the thinking is shown to those who ask for it.
    thinking = None if place.model == "anthropic" else "hm"
    assert OPENAI.run(place, home, program) == ["hi there", thinking, "hi there"]


@EACH
def test_messages(place: Place, gateway: Harness, home: Path, tokenizer: Tokenizer) -> None:
    gateway.script(text(tokenizer, "hi there"))
    program = """
with client.messages.stream(**asked) as stream:
    streamed = "".join(stream.text_stream)
    final = stream.get_final_message()
whole = client.messages.create(**asked)
texts = [block.text for block in whole.content if block.type == "text"]
print(json.dumps([texts, streamed, whole.stop_reason, final.stop_reason]))
"""
    told = [["hi there"], "hi there", "end_turn", "end_turn"]
    assert ANTHROPIC.run(place, home, program) == told


@EACH
def test_responses(place: Place, gateway: Harness, home: Path, tokenizer: Tokenizer) -> None:
    gateway.script(text(tokenizer, "hi there"))
    program = """
whole = client.responses.create(model=MODEL, input="hello")
with client.responses.stream(model=MODEL, input="hello") as stream:
    deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
print(json.dumps([whole.output_text, "".join(deltas)]))
"""
    assert OPENAI.run(place, home, program) == ["hi there", "hi there"]


@EACH
def test_a_tool_loop_over_messages_continues_what_was_emitted(
    place: Place, gateway: Harness, home: Path, tokenizer: Tokenizer
) -> None:
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
print(json.dumps([block.text for block in message.content if block.type == "text"]))
"""
    assert ANTHROPIC.run(place, home, program) == ["it rains"]
    assert_the_loop_continued(gateway, tokenizer)


@EACH
def test_a_prompt_that_is_too_long_is_told(place: Place, home: Path) -> None:
    program = f"""
{TOO_LONG}
try:
    client.chat.completions.create(**asked())
except openai.BadRequestError as error:
    print(json.dumps("ContextWindowExceededError" in error.message))
"""
    assert OPENAI.run(place, home, program) is True


@EACH
def test_claude_code_runs_its_tools(
    place: Place, gateway: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    calls = [invoke("Bash", command=f"echo {word} > {word}.txt; cat {word}.txt") for word in "ab"]
    called = tool_answer(tokenizer, *calls)
    gateway.script(in_turn(say(called, eos=EOS, step=8), then=text(tokenizer, "both are there")))
    done = ask(place, home, "--allowedTools", "Bash", "--", "Make two files")
    assert done.stdout.strip() == "both are there", done.stderr + done.stdout
    assert [(home / f"{word}.txt").read_text().strip() for word in "ab"] == ["a", "b"]
    first, second = (list(request.prompt_token_ids) for request in gateway.fake.requests)
    assert second[: len(first) + len(called)] == [*first, *called], "the prefix cache would miss"
