"""The OpenAI Agents SDK, unmodified, on a scripted model behind the real gateway."""

from pathlib import Path

from moe_model.text.tokenizer import Tokenizer
from tests.support.clients.frameworks import OPENAI_AGENTS as SDK
from tests.support.clients.scripted import call, grammars, text
from tests.support.clients.sdks import TOO_LONG, at
from tests.support.gateway.fake_attention import in_turn
from tests.support.gateway.harness import Harness


def test_a_stream_is_the_same_answer(gateway: Harness, home: Path, tokenizer: Tokenizer) -> None:
    gateway.script(text(tokenizer, "hi there"))
    program = """
agent = Agent(name="a", model=model)

async def both():
    return [(await Runner.run(agent, "hello")).final_output, await streamed(agent, "hello")]

print(json.dumps(asyncio.run(both())))
"""
    assert SDK.run(at(gateway), home, program) == ["hi there", "hi there"]


def test_the_thinking_is_told_while_it_streams(
    gateway: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    gateway.script(text(tokenizer, "hi there"))
    program = """
async def thinking():
    events = Runner.run_streamed(Agent(name="a", model=model), "hello").stream_events()
    raw = [event.data async for event in events if event.type == "raw_response_event"]
    return "".join(data.delta for data in raw if data.type.startswith("response.reasoning")
                   and data.type.endswith(".delta"))

print(json.dumps(asyncio.run(thinking())))
"""
    assert SDK.run(at(gateway), home, program) == "hm"


def test_output_types_are_held_to_their_schema(
    gateway: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    gateway.script(text(tokenizer, '{"place": "Rome", "days": 2}'))
    program = """
agent = Agent(name="a", model=model, output_type=Weather)
print(json.dumps(Runner.run_sync(agent, "hello").final_output.days))
"""
    assert SDK.run(at(gateway), home, program) == 2
    assert all(grammars(gateway))


def test_a_handoff_goes_to_the_other_agent(
    restoring: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    restoring.script(in_turn(call(tokenizer, "transfer_to_poet"), text(tokenizer, "it rhymes")))
    program = """
poet = Agent(name="poet", model=model, instructions="You rhyme.")
desk = Agent(name="desk", model=model, instructions="You pass on.", handoffs=[poet])
result = Runner.run_sync(desk, "A poem?")
print(json.dumps([result.final_output, result.last_agent.name]))
"""
    assert SDK.run(at(restoring), home, program) == ["it rhymes", "poet"]
    first, second = (
        tokenizer.decode(request.prompt_token_ids) for request in restoring.fake.requests
    )
    assert ("You pass on." in first, "transfer_to_poet" in first) == (True, True)
    assert "You rhyme." in second
    assert "call\n</think>" not in second, "it was thought under other instructions"


def test_errors_are_understood(gateway: Harness, home: Path) -> None:
    program = f"""
{TOO_LONG}
try:
    Runner.run_sync(Agent(name="a", model=model), question)
except openai.BadRequestError as error:
    print(json.dumps(error.code))
"""
    assert SDK.run(at(gateway), home, program) == "context_length_exceeded"
