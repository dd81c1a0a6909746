"""instructor, unmodified, on a scripted model behind the real gateway."""

from pathlib import Path

import pytest

from moe_model.text.tokenizer import Tokenizer
from tests.support.clients.frameworks import INSTRUCTOR as SDK
from tests.support.clients.scripted import call, grammars, text
from tests.support.clients.sdks import at
from tests.support.gateway.answers import invoke, tool_answer
from tests.support.gateway.fake_attention import in_turn, say
from tests.support.gateway.harness import Harness
from tests.support.gateway.model import EOS


def test_its_default_mode_forces_a_call(gateway: Harness, home: Path, tokenizer: Tokenizer) -> None:
    tools = "Weather", "PartialWeather"
    calls = [call(tokenizer, tool, place="Rome", days="2") for tool in tools]
    gateway.script(in_turn(*calls))
    program = """
client = instructor.from_openai(plain)
whole = client.create(**asked, response_model=Weather)
parts = list(client.create_partial(**asked, response_model=Weather))
print(json.dumps([whole.days, parts[-1].days]))
"""
    assert SDK.run(at(gateway), home, program) == [2, 2]
    assert all(grammars(gateway))


def test_its_client_by_the_providers_name(
    gateway: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    gateway.script(call(tokenizer, "Weather", place="Rome", days="2"))
    program = """
client = instructor.from_provider("openai/" + MODEL, base_url=URL + "/v1", api_key=KEY)
print(json.dumps(client.create(messages=asked["messages"], response_model=Weather).days))
"""
    assert SDK.run(at(gateway), home, program) == 2
    assert all(grammars(gateway))


@pytest.mark.parametrize("mode", ["TOOLS_STRICT", "FUNCTIONS", "RESPONSES_TOOLS"])
def test_its_other_modes_with_one_call_force_it(
    gateway: Harness, home: Path, tokenizer: Tokenizer, mode: str
) -> None:
    gateway.script(call(tokenizer, "Weather", place="Rome", days="2"))
    program = f"""
client = instructor.from_openai(plain, mode=instructor.Mode.{mode})
print(json.dumps(client.create(**asked, response_model=Weather).days))
"""
    assert SDK.run(at(gateway), home, program) == 2
    assert all(grammars(gateway))


def test_parallel_calls_are_told_apart(gateway: Harness, home: Path, tokenizer: Tokenizer) -> None:
    calls = invoke("Weather", place="Rome", days="2"), invoke("Sum", a="1", b="3")
    gateway.script(say(tool_answer(tokenizer, *calls), eos=EOS))
    program = """
from collections.abc import Iterable

class Sum(BaseModel):
    a: int
    b: int

client = instructor.from_openai(plain, mode=instructor.Mode.PARALLEL_TOOLS)
weather, sum = client.create(**asked, response_model=Iterable[Weather | Sum])
print(json.dumps([weather.days, sum.b, type(sum).__name__]))
"""
    assert SDK.run(at(gateway), home, program) == [2, 3, "Sum"]


def test_json_in_a_fence_is_read_from_the_text(
    gateway: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    gateway.script(text(tokenizer, 'Here:\n```json\n{"place": "Rome", "days": 2}\n```'))
    program = """
client = instructor.from_openai(plain, mode=instructor.Mode.MD_JSON)
whole = client.create(**asked, response_model=Weather)
parts = list(client.create_partial(**asked, response_model=Weather))
print(json.dumps([whole.days, parts[-1].days]))
"""
    assert SDK.run(at(gateway), home, program) == [2, 2]
    prompt = tokenizer.decode(gateway.fake.requests[0].prompt_token_ids)
    assert '"days"' in prompt, "the schema is in the prompt"


@pytest.mark.parametrize("mode", ["JSON", "JSON_SCHEMA", "JSON_O1"])
def test_its_json_modes_are_held_to_json(
    gateway: Harness, home: Path, tokenizer: Tokenizer, mode: str
) -> None:
    gateway.script(text(tokenizer, '{"place": "Rome", "days": 2}'))
    program = f"""
client = instructor.from_openai(plain, mode=instructor.Mode.{mode})
print(json.dumps(client.create(**asked, response_model=Weather).days))
"""
    assert SDK.run(at(gateway), home, program) == 2
    assert all(grammars(gateway))


def test_an_answer_that_it_refuses_is_asked_for_again_with_its_thinking(
    restoring: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    restoring.script(
        in_turn(
            call(tokenizer, "Weather", place="Rome", days="2"),
            call(tokenizer, "Weather", place="Rome", days="9"),
        )
    )
    program = """
from pydantic import field_validator

class Long(Weather):
    @field_validator("days")
    def many(cls, days):
        assert days > 5, "more days, please"
        return days

Long.__name__ = "Weather"
client = instructor.from_openai(plain)
print(json.dumps(client.create(**asked, response_model=Long, max_retries=2).days))
"""
    assert SDK.run(at(restoring), home, program) == 9
    first, second = (list(request.prompt_token_ids) for request in restoring.fake.requests)
    turn = tokenizer.decode(second[len(first) :])
    assert turn.startswith("call\n</think>"), turn
    assert "more days, please" in turn


def test_a_cut_call_is_incomplete_to_it(gateway: Harness, home: Path, tokenizer: Tokenizer) -> None:
    gateway.script(call(tokenizer, "Weather", place="Rome", days="2"))
    program = """
from instructor.core import IncompleteOutputException, InstructorRetryException
client = instructor.from_openai(plain)
try:
    client.create(**asked, response_model=Weather, max_tokens=90, max_retries=0)
except (IncompleteOutputException, InstructorRetryException) as error:
    print(json.dumps(type(error).__name__))
"""
    assert SDK.run(at(gateway), home, program) == "IncompleteOutputException"
