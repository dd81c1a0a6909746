"""LlamaIndex, unmodified, on a scripted model behind the real gateway."""

from pathlib import Path

from moe_model.text.tokenizer import Tokenizer
from tests.support.clients.frameworks import LLAMA_INDEX as SDK
from tests.support.clients.scripted import WEATHER, call, grammars, text
from tests.support.clients.sdks import TOO_LONG, at
from tests.support.gateway.answers import invoke, tool_answer
from tests.support.gateway.fake_attention import in_turn, say
from tests.support.gateway.harness import Harness
from tests.support.gateway.model import EOS


def test_a_stream_is_the_same_answer(gateway: Harness, home: Path, tokenizer: Tokenizer) -> None:
    gateway.script(text(tokenizer, "hi there"))
    program = """
streamed = "".join(part.delta or "" for part in model.stream_chat(asked))
whole = model.chat(asked).message.content
print(json.dumps([whole, streamed, model.complete("hello").text]))
"""
    assert SDK.run(at(gateway), home, program) == ["hi there"] * 3


def test_structured_output_by_its_default_forced_call(
    gateway: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    gateway.script(call(tokenizer, "Weather", place="Rome", days="2"))
    program = """
print(json.dumps(model.as_structured_llm(Weather).chat(asked).raw.days))
"""
    assert SDK.run(at(gateway), home, program) == 2
    assert all(grammars(gateway))


def test_structured_output_by_schema(gateway: Harness, home: Path, tokenizer: Tokenizer) -> None:
    gateway.script(text(tokenizer, '{"place": "Rome", "days": 2}'))
    program = """
model.should_use_structured_outputs = True
print(json.dumps(model.as_structured_llm(Weather).chat(asked).raw.days))
"""
    assert SDK.run(at(gateway), home, program) == 2
    assert all(grammars(gateway))


def test_it_predicts_a_call_and_makes_it(
    gateway: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    gateway.script(
        in_turn(
            call(tokenizer, "weather", place="Rome"),
            say(tool_answer(tokenizer, *(invoke("weather", place=p) for p in "ab")), eos=EOS),
        )
    )
    program = f"""
from llama_index.core.tools import FunctionTool
{WEATHER.python}
tools = [FunctionTool.from_defaults(weather)]
one = model.predict_and_call(tools, user_msg="hello")
two = model.predict_and_call(tools, user_msg="hello", allow_parallel_tool_calls=True)
print(json.dumps([
    [source.raw_input["kwargs"] for source in answer.sources] for answer in (one, two)
] + [one.response]))
"""
    told = [[{"place": "Rome"}], [{"place": "a"}, {"place": "b"}], "rain"]
    assert SDK.run(at(gateway), home, program) == told


def test_errors_are_understood(gateway: Harness, home: Path) -> None:
    program = f"""
import openai
{TOO_LONG}
try:
    model.chat([ChatMessage(role="user", content=question)])
except openai.BadRequestError as error:
    print(json.dumps(error.code))
"""
    assert SDK.run(at(gateway), home, program) == "context_length_exceeded"
