"""smolagents, unmodified, on a scripted model behind the real gateway."""

from pathlib import Path

from moe_model.text.tokenizer import Tokenizer
from tests.support.clients.frameworks import SMOLAGENTS as SDK
from tests.support.clients.scripted import WEATHER, call, grammars, text
from tests.support.clients.sdks import at
from tests.support.gateway.fake_attention import in_turn
from tests.support.gateway.harness import Harness


def test_a_stream_is_the_same_answer(gateway: Harness, home: Path, tokenizer: Tokenizer) -> None:
    gateway.script(text(tokenizer, "hi there"))
    program = """
asked = [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]
streamed = "".join(delta.content or "" for delta in model.generate_stream(asked))
print(json.dumps([model(asked).content, streamed]))
"""
    assert SDK.run(at(gateway), home, program) == ["hi there", "hi there"]


def test_the_loop_of_its_tool_calling_agent_ends(
    restoring: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    restoring.script(
        in_turn(
            call(tokenizer, "weather", place="Rome"),
            call(tokenizer, "final_answer", answer="it rains"),
        )
    )
    assert SDK.run_loop(at(restoring), home, WEATHER) == "it rains"
    assert all(grammars(restoring))
    second = tokenizer.decode(restoring.fake.requests[1].prompt_token_ids)
    assert "Observation:\nrain" in second
    assert "<minimax:tool_call>" not in second, "it sends calls back as text"


def test_its_code_agent_runs_code(restoring: Harness, home: Path, tokenizer: Tokenizer) -> None:
    code = "<code>\nfinal_answer(weather('Rome') + '!')\n</code>"
    restoring.script(text(tokenizer, f"Thought: I ask.\n{code}"))
    program = f"""
{WEATHER.python}
agent = CodeAgent(tools=[tool(weather)], model=model, verbosity_level=0)
print(json.dumps(agent.run({WEATHER.question!r})))
"""
    assert SDK.run(at(restoring), home, program) == "rain!"
