"""What does the model behind the gateway answer a client, and what came back to it?"""

from moe_model.text.tokenizer import Tokenizer
from tests.support.clients.sdks import KEY, Task
from tests.support.gateway.answers import invoke, thinking_answer, tool_answer
from tests.support.gateway.fake_attention import Script, in_turn, length, say, tokens
from tests.support.gateway.harness import Harness
from tests.support.gateway.model import EOS

CONTEXT = 400_000
"""A byte is a token in the small tokenizer, and agents send a hundred thousand of them."""

WEATHER = Task(
    question="The weather in Rome?",
    tool="weather",
    python='''
def weather(place: str) -> str:
    """The weather of a place.

    Args:
        place: The place's name.
    """
    return "rain"
''',
    javascript="""
const TOOL = {
  type: "function",
  function: {
    name: "weather",
    description: "The weather of a place",
    parameters: {type: "object", properties: {place: {type: "string"}}},
    parse: JSON.parse,
    function: () => "rain",
  },
}
""",
)


def text(tokenizer: Tokenizer, answer: str) -> Script:
    return say(thinking_answer(tokenizer, "hm", answer), eos=EOS)


def call(tokenizer: Tokenizer, tool: str, **arguments: str) -> Script:
    return say(tool_answer(tokenizer, invoke(tool, **arguments)), eos=EOS)


def cut(ids: list[int]) -> Script:
    """These tokens, and then max_tokens is reached."""
    return lambda request: [tokens(0, ids), length(len(ids))]


def script_tool_loop(gateway: Harness, tokenizer: Tokenizer) -> None:
    """The model asks for the weather in Rome, and answers when it has the result."""
    weather = call(tokenizer, "weather", place="Rome")
    gateway.script(in_turn(weather, text(tokenizer, "it rains")))


def assert_thinking_came_back(
    gateway: Harness, tokenizer: Tokenizer, *, by_the_gateway: bool
) -> None:
    """The second prompt goes on with what was emitted, and the gateway put it back, or the client.

    `by_the_gateway`: the client had dropped the thinking.
    """
    assert_the_loop_continued(gateway, tokenizer)
    restored = gateway.metric_of({"authorization": f"Bearer {KEY}"}, "thinking_restored_total")
    assert restored == by_the_gateway


def assert_the_loop_continued(gateway: Harness, tokenizer: Tokenizer) -> None:
    """The second prompt goes on with what was emitted, thinking and all."""
    first, second = (list(request.prompt_token_ids) for request in gateway.fake.requests)
    emitted = [*first, *tool_answer(tokenizer, invoke("weather", place="Rome")), EOS]
    assert second[: len(emitted)] == emitted, tokenizer.decode(second[len(first) - 20 :])
    assert "rain" in tokenizer.decode(second[len(emitted) :])


def grammars(gateway: Harness) -> list[str]:
    """What the model was held to in each request; "" for free text."""
    return [request.grammar.text for request in gateway.fake.requests]
