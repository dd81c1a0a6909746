"""A request's grammar is checked, made and sent once, however many choices it has."""

import json
from typing import Any

import grpc
import pytest

from gateway.shapes import structured_outputs as forms
from moe_model.text.tokenizer import Tokenizer
from tests.support.gateway.fake_attention import say
from tests.support.gateway.harness import Harness
from tests.support.gateway.model import EOS, NAME

LONG = {"choice": ["x" * 400_000]}
REFUSED = (grpc.StatusCode.INVALID_ARGUMENT, "grammar: compiling it takes too much time")


@pytest.fixture
def taking(make_gateway: Any) -> Harness:
    """A gateway whose attention services say at once that they took a grammar."""
    made: Harness = make_gateway(fakes=2)
    for fake in made.fakes:
        fake.takes_grammars = True
    made.script(say([65], eos=EOS))
    return made


def complete(gateway: Harness, form: Any, **fields: Any) -> Any:
    body = {
        "model": NAME,
        "prompt": ["x"] * 16,
        "n": 8,
        "max_tokens": 1,
        "structured_outputs": form,
    }
    return gateway.post("/v1/completions", {**body, **fields})


def requests_of(gateway: Harness) -> list[list[Any]]:
    return [fake.requests for fake in gateway.fakes]


def test_the_text_goes_once_to_each_service_and_the_others_name_it(taking: Harness) -> None:
    reply = complete(taking, LONG)
    assert reply.status_code == 200
    assert len(reply.json()["choices"]) == 128
    for requests in requests_of(taking):
        with_text = [request for request in requests if request.grammar.text]
        by_id = [request for request in requests if request.grammar_id]
        assert len(with_text) == 1
        assert len(by_id) == len(requests) - 1 > 10
        assert sum(request.ByteSize() for request in requests) < 500_000
    assert sum(map(len, requests_of(taking))) == 128


def test_a_refused_grammar_is_sent_once_and_is_the_whole_requests_error(make_gateway: Any) -> None:
    gateway = make_gateway()
    gateway.fake.takes_grammars = True
    gateway.script(lambda r: [REFUSED])
    for stream in (False, True):
        gateway.fake.requests.clear()
        reply = complete(gateway, {"choice": ["a"]}, stream=stream)
        assert reply.status_code == 400
        assert reply.json()["error"]["param"] == "structured_outputs"
        assert "too much time" in reply.json()["error"]["message"]
        assert len(gateway.fake.requests) == 1


def test_a_service_that_has_forgotten_a_grammar_gets_its_text_again(
    make_gateway: Any, tokenizer: Tokenizer
) -> None:
    gateway = make_gateway()
    gateway.fake.takes_grammars = True

    def forgetful(request: Any) -> Any:
        gateway.fake.known_grammars.clear()  # each time before it checks
        return say([65], eos=EOS)(request)

    gateway.script(forgetful)
    reply = complete(gateway, {"choice": ["a"]}, prompt="x", n=4)
    assert reply.status_code == 200
    assert len(reply.json()["choices"]) == 4
    assert sum(bool(request.grammar.text) for request in gateway.fake.requests) == 4


def test_a_service_of_before_gets_the_text_with_each_choice(gateway: Harness) -> None:
    gateway.script(say([65], eos=EOS))
    reply = complete(gateway, {"choice": ["a"]}, prompt="x", n=4)
    assert reply.status_code == 200
    assert [bool(r.grammar.text) for r in gateway.fake.requests] == [True] * 4
    assert not any(request.grammar_id for request in gateway.fake.requests)


def test_chat_choices_share_their_grammar_too(taking: Harness) -> None:
    reply = taking.chat(n=8, response_format={"type": "json_object"}, max_tokens=1)
    assert reply.status_code == 200
    sent = [request for requests in requests_of(taking) for request in requests]
    assert len(sent) == 8
    assert 1 <= sum(bool(request.grammar.text) for request in sent) <= 2


def test_a_grammar_is_written_once_for_all_prompts(
    taking: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[bool] = []
    original = forms.grammar_of

    def counting(value: Any, limits: Any, *, thinks: bool) -> Any:
        calls.append(thinks)
        return original(value, limits, thinks=thinks)

    monkeypatch.setattr(forms, "grammar_of", counting)
    assert complete(taking, {"regex": "a+"}).status_code == 200
    assert sorted(calls) == [False, True]


@pytest.mark.parametrize(
    "form, words",
    [
        ({"regex": "a" * 4_000_000}, "structured_outputs.regex: at most 32768 characters"),
        ({"grammar": "a" * 4_000_000}, "structured_outputs.grammar: at most"),
        ({"choice": ["a" * 4_000_000]}, "structured_outputs.choice: at most"),
        ({"json": '{"a": ' * 300 + "{}" + "}" * 300}, "structured_outputs.json: not valid JSON"),
        (
            {"json": json.dumps({"enum": list(range(500_000))})},
            "structured_outputs.json: at most",
        ),
        ({"json": '{"a": 1, "a": 2}'}, "duplicate key"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_over_a_limit_is_refused_before_anything_is_sent(
    taking: Harness, form: Any, words: str
) -> None:
    reply = complete(taking, form)
    assert reply.status_code == 400
    assert words in reply.json()["error"]["message"]
    assert requests_of(taking) == [[], []]
