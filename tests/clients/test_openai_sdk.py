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


def test_streams_of_calls_of_types_and_of_several_choices(
    gateway: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    weather = {"place": "Rome", "days": "2"}
    gateway.script(
        in_turn(
            call(tokenizer, "Weather", **weather),
            text(tokenizer, '{"place": "Rome", "days": 3}'),
            then=text(tokenizer, "hi there"),
        )
    )
    program = """
tool = openai.pydantic_function_tool(Weather)
named = {"type": "function", "function": {"name": "Weather"}}
asked_named = dict(asked(), tools=[tool], tool_choice=named, parallel_tool_calls=False)
with client.chat.completions.stream(**asked_named) as stream:
    done = [e for e in stream if e.type == "tool_calls.function.arguments.done"]
with client.chat.completions.stream(**asked(), response_format=Weather) as stream:
    typed = stream.get_final_completion().choices[0].message.parsed
texts = ["", "", ""]
logged = 0
three = dict(asked(), n=3, logprobs=True)
whole = client.chat.completions.create(**three)
usage = {"include_usage": True}
chunks = client.chat.completions.create(**three, stream=True, stream_options=usage)
for chunk in chunks:
    for choice in chunk.choices:
        texts[choice.index] += choice.delta.content or ""
        logged += len(choice.logprobs.content) if choice.logprobs else 0
plain = client.completions.create(model=MODEL, prompt="one", stream=True)
print(json.dumps([
    [event.parsed_arguments.days for event in done], typed.days, texts,
    [logged, chunk.usage.completion_tokens] == [
        sum(len(choice.logprobs.content) for choice in whole.choices),
        whole.usage.completion_tokens,
    ], "".join(c.choices[0].text for c in plain)[:2],
]))
"""
    told = [[2], 3, ["hi there"] * 3, True, "hm"]
    assert SDK.run(at(gateway), home, program) == told


def test_what_servers_like_this_one_take_beside_openais_fields(
    gateway: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    gateway.script(text(tokenizer, '{"place": "Rome", "days": 2}'))
    program = """
schema = Weather.model_json_schema()
form = {"type": "json_schema", "json_schema": {"name": "w", "schema": schema}}
tools = [openai.pydantic_function_tool(Weather), {"type": "function", "function": {"name": "b"}}]
only = [{"type": "function", "function": {"name": "Weather"}}]
some = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": only}}

def chat(**fields):
    return client.chat.completions.create(**asked(), **fields).choices[0].to_dict()

answers = [
    chat(response_format={"type": "json_object"}),
    chat(extra_body={"structured_outputs": {"json": schema}}),
    chat(extra_body={"chat_template_kwargs": {"enable_thinking": False}}),
    chat(tools=tools, tool_choice=some),
    chat(tools=tools, tool_choice="none"),
]
with_ids = chat(extra_body={"return_token_ids": True})
plain = client.completions.create(model=MODEL, prompt="a", extra_body={"response_format": form})
print(json.dumps([
    {answer["message"]["content"] for answer in answers} == {'{"place": "Rome", "days": 2}'},
    len(with_ids["token_ids"]) > 0, plain.choices[0].finish_reason,
]))
"""
    assert SDK.run(at(gateway), home, program) == [True, True, "stop"]
    held = [True, True, False, False, False, False, True]
    assert [bool(grammar) for grammar in grammars(gateway)] == held


def test_what_is_not_served_is_refused_by_name(gateway: Harness, home: Path) -> None:
    program = """
picture = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]
custom = [{"type": "custom", "custom": {"name": "a"}}]
told = []
for fail in (
    lambda: client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": picture}]
    ),
    lambda: client.chat.completions.create(**asked(), tools=custom),
    lambda: client.chat.completions.create(**asked(), top_p=0),
    lambda: client.embeddings.create(model=MODEL, input="a"),
    lambda: client.moderations.create(input="a"),
    lambda: client.files.list(),
    lambda: client.batches.list(),
):
    try:
        fail()
    except openai.APIStatusError as error:
        told.append([error.status_code, error.param])
print(json.dumps(told))
"""
    told = SDK.run(at(gateway), home, program)
    assert [status for status, _ in told] == [400, 400, 400, 404, 404, 404, 404]
    fields = ["messages[0].content[0].type", "tools[0].type", "top_p"]
    assert [param for _, param in told[:3]] == fields
