"""smolagents, unmodified, on a scripted model behind the real gateway."""

from pathlib import Path

import pytest

from moe_model.text.tokenizer import Tokenizer
from tests.support.clients import sdks
from tests.support.gateway.harness import Harness

pytestmark = pytest.mark.timeout(300)

SDK = sdks.Sdk(
    name="smolagents",
    requirements=("smolagents[openai]==1.26.0",),
    start="""
from smolagents import CodeAgent, OpenAIModel, ToolCallingAgent, tool

model = OpenAIModel(model_id=MODEL, api_base=URL + "/v1", api_key=KEY)

@tool
def weather(place: str) -> str:
    '''The weather of a place.

    Args:
        place: The place's name.
    '''
    return "rain"
""",
)


def test_a_stream_is_the_same_answer(gateway: Harness, home: Path, tokenizer: Tokenizer) -> None:
    gateway.script(sdks.text(tokenizer, "hi there"))
    program = """
asked = [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]
streamed = "".join(delta.content or "" for delta in model.generate_stream(asked))
print(json.dumps([model(asked).content, streamed]))
"""
    assert SDK.run(gateway, home, program) == ["hi there", "hi there"]


def test_the_loop_of_its_tool_calling_agent_ends(
    restoring: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    restoring.script(
        sdks.in_turn(
            sdks.call(tokenizer, "weather", place="Rome"),
            sdks.call(tokenizer, "final_answer", answer="it rains"),
        )
    )
    program = """
agent = ToolCallingAgent(tools=[weather], model=model, verbosity_level=0)
print(json.dumps(agent.run("The weather in Rome?")))
"""
    assert SDK.run(restoring, home, program) == "it rains"
    assert all(sdks.grammars(restoring))
    second = tokenizer.decode(restoring.fake.requests[1].prompt_token_ids)
    assert "Observation:\nrain" in second
    assert "<minimax:tool_call>" not in second, "it sends calls back as text"


def test_its_code_agent_runs_code(restoring: Harness, home: Path, tokenizer: Tokenizer) -> None:
    code = "<code>\nfinal_answer(weather('Rome') + '!')\n</code>"
    restoring.script(sdks.text(tokenizer, f"Thought: I ask.\n{code}"))
    program = """
agent = CodeAgent(tools=[weather], model=model, verbosity_level=0)
print(json.dumps(agent.run("The weather in Rome?")))
"""
    assert SDK.run(restoring, home, program) == "rain!"
