"""LangChain, unmodified, on a scripted model behind the real gateway."""

from pathlib import Path

from moe_model.text.tokenizer import Tokenizer
from tests.support.clients.frameworks import LANGCHAIN as SDK
from tests.support.clients.scripted import (
    WEATHER,
    assert_thinking_came_back,
    call,
    grammars,
    script_tool_loop,
    text,
)
from tests.support.clients.sdks import TOO_LONG, at
from tests.support.gateway.fake_attention import in_turn
from tests.support.gateway.harness import Harness

RESPONSES = """
model = ChatOpenAI(base_url=URL + "/v1", api_key=KEY, model=MODEL, max_retries=0, temperature=0,
                   use_responses_api=True)
"""


def test_a_stream_is_the_same_answer(gateway: Harness, home: Path, tokenizer: Tokenizer) -> None:
    gateway.script(text(tokenizer, "hi there"))
    program = """
whole = model.invoke("hello")
streamed = "".join(chunk.text for chunk in model.stream("hello"))
print(json.dumps([whole.text, streamed, whole.response_metadata["finish_reason"]]))
"""
    assert SDK.run(at(gateway), home, program) == ["hi there", "hi there", "stop"]


def test_structured_output_by_schema_and_by_a_forced_call(
    gateway: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    gateway.script(
        in_turn(
            text(tokenizer, '{"place": "Rome", "days": 2}'),
            call(tokenizer, "Weather", place="Rome", days="3"),
        )
    )
    program = """
by_schema = model.with_structured_output(Weather).invoke("hello")
by_call = model.with_structured_output(Weather, method="function_calling").invoke("hello")
print(json.dumps([by_schema.days, by_call.days]))
"""
    assert SDK.run(at(gateway), home, program) == [2, 3]
    assert all(grammars(gateway))


def test_structured_output_by_its_json_mode_and_any_bound_tool(
    gateway: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    gateway.script(
        in_turn(
            text(tokenizer, '{"place": "Rome", "days": 1}'),
            text(tokenizer, '{"place": "Rome", "days": 2}'),
            call(tokenizer, "Weather", place="Rome", days="3"),
            call(tokenizer, "Weather", place="Rome", days="4"),
        )
    )
    program = """
strictly = model.with_structured_output(Weather, strict=True).invoke("hello")
by_json = model.with_structured_output(Weather, method="json_mode").invoke("hello")
bound = model.bind_tools([Weather], tool_choice="any")
(called,) = bound.invoke("hello").tool_calls
chunks = list(bound.stream("hello"))
(streamed,) = sum(chunks[1:], chunks[0]).tool_calls
print(json.dumps([strictly.days, by_json.days, called["name"], called["args"], streamed["args"]]))
"""
    rome = [{"place": "Rome", "days": days} for days in (3, 4)]
    assert SDK.run(at(gateway), home, program) == [1, 2, "Weather", *rome]
    assert all(grammars(gateway))


def test_usage_batches_and_tools_are_as_with_openai(
    gateway: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    gateway.script(text(tokenizer, "hi there"))
    program = """
usage = model.invoke("hello").usage_metadata
batch = [message.text for message in model.batch(["hello", "you"])]
logged = model.bind(logprobs=True).invoke("hello").response_metadata["logprobs"]["content"]
bound = model.bind_tools([Weather]).invoke("hello").text
print(json.dumps([
    usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"],
    usage["output_token_details"]["reasoning"] > 0, batch, len(logged) > 0, bound,
]))
"""
    told = [True, True, ["hi there"] * 2, True, "hi there"]
    assert SDK.run(at(gateway), home, program) == told


def test_its_class_for_anthropic_speaks_messages(
    restoring: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    """Its tool loop ends, and what was cached adds up to the prompt."""
    script_tool_loop(restoring, tokenizer)
    program = f"""
{WEATHER.python}
model = ChatAnthropic(base_url=URL, api_key=KEY, model=MODEL, max_tokens=300, max_retries=0)
agent = create_agent(model, [weather])
*_, last = agent.invoke({{"messages": [("user", {WEATHER.question!r})]}})["messages"]
print(json.dumps([last.text, last.usage_metadata["input_tokens"]]))
"""
    told = SDK.run(at(restoring), home, program)
    assert told == ["it rains", len(restoring.fake.requests[1].prompt_token_ids)]
    assert_thinking_came_back(restoring, tokenizer, by_the_gateway=True)


def test_it_speaks_responses_when_told_to(
    gateway: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    gateway.script(
        in_turn(
            text(tokenizer, "hi there"),
            text(tokenizer, "hi there"),
            text(tokenizer, '{"place": "Rome", "days": 2}'),
        )
    )
    program = f"""
{RESPONSES}
whole = model.invoke("hello")
streamed = "".join(chunk.text for chunk in model.stream("hello"))
parsed = model.with_structured_output(Weather).invoke("hello")
print(json.dumps([
    whole.text, streamed, parsed.days, whole.response_metadata["object"],
    whole.usage_metadata["output_token_details"]["reasoning"] > 0,
]))
"""
    told = ["hi there", "hi there", 2, "response", True]
    assert SDK.run(at(gateway), home, program) == told
    assert [bool(grammar) for grammar in grammars(gateway)] == [False, False, True]


def test_its_tool_loop_over_responses_returns_the_thinking(
    restoring: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    script_tool_loop(restoring, tokenizer)
    program = f"""
{RESPONSES}
{WEATHER.python}
agent = create_agent(model, [weather])
*_, last = agent.invoke({{"messages": [("user", {WEATHER.question!r})]}})["messages"]
print(json.dumps(last.text))
"""
    assert SDK.run(at(restoring), home, program) == "it rains"
    assert_thinking_came_back(restoring, tokenizer, by_the_gateway=False)


def test_errors_are_understood(gateway: Harness, home: Path) -> None:
    program = f"""
from langchain_core.exceptions import ContextOverflowError
{TOO_LONG}
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
    assert SDK.run(at(gateway), home, program) == told
