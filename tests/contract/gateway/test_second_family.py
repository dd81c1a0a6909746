"""The gateway serves a family that it has never heard of by what the family says of itself."""

import json
from pathlib import Path
from typing import Any

import pytest

from moe_model.families.known import FAMILIES
from tests.support.gateway.answers import WEATHER
from tests.support.gateway.fake_attention import say
from tests.support.gateway.harness import Harness, ready_status
from tests.support.gateway.model import byte_tokenizer
from tests.support.moe_model.toy_family import AHA, HMM, ROLE, TEMPLATE, TOY, TOY_CONFIG, USE

CONTEXT, EOS = 2048, 290
IDS = {text: 300 + i for i, text in enumerate(TOY.chat_format.markers)}


@pytest.fixture
def toy(make_gateway: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Harness:
    monkeypatch.setitem(FAMILIES, "toy", TOY)
    files = {
        "config.json": {**TOY_CONFIG, "context": CONTEXT, "stop": EOS},
        "tokenizer.json": byte_tokenizer({text: (i, text == ROLE) for text, i in IDS.items()}),
    }
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    (tmp_path / "chat_template.jinja").write_text(TEMPLATE)
    made: Harness = make_gateway(model_folder=tmp_path, status=ready_status(CONTEXT))
    return made


def ids_of(*parts: str) -> list[int]:
    """Markers as tokens, all other text as its bytes."""
    return [i for part in parts for i in ([IDS[part]] if part in IDS else part.encode())]


def test_its_parser_tells_thinking_from_the_answer(toy: Harness) -> None:
    toy.script(say(ids_of("why", AHA, "so"), eos=EOS))
    message = toy.chat().json()["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("why", "so")
    request = toy.fake.requests[-1]
    assert list(request.prompt_token_ids[-1:]) == [IDS[HMM]]
    assert request.end_of_thinking_id == IDS[AHA]
    assert (request.sampling.temperature, request.sampling.top_k) == (0.5, 7)


def test_thinking_that_stays_in_the_content_has_its_tags_and_comes_back(toy: Harness) -> None:
    toy.script(say(ids_of("why", AHA, "so"), eos=EOS))
    content = toy.chat(reasoning_split=False).json()["choices"][0]["message"]["content"]
    assert content == f"{HMM}\nwhy\n{AHA}\n\nso"
    user = {"role": "user", "content": "hello"}
    toy.chat(messages=[user, {"role": "assistant", "content": content}, user])
    prompt = list(toy.fake.requests[-1].prompt_token_ids)
    assert prompt.count(IDS[AHA]) == 1
    assert prompt[prompt.index(IDS[AHA]) + 1 :][:2] == list(b"so")


def test_its_calls_are_forced_by_its_rules_and_read_by_its_parser(toy: Harness) -> None:
    call = '{"name": "weather", "arguments": {"place": "Rome"}}'
    toy.script(say(ids_of("so", AHA, USE, call), eos=EOS))
    choice = toy.chat(tools=[WEATHER], tool_choice="required").json()["choices"][0]
    function = choice["message"]["tool_calls"][0]["function"]
    assert (choice["finish_reason"], function["name"]) == ("tool_calls", "weather")
    assert json.loads(function["arguments"]) == {"place": "Rome"}
    assert f"use: <[{IDS[USE]}]> call" in toy.fake.requests[-1].grammar.text
