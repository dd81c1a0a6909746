"""Streams of responses in the background: a client may leave, and come back to where it was."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from gateway.limits import Limits
from moe_model.text.tokenizer import Tokenizer
from tests.support.gateway.answers import thinking_answer
from tests.support.gateway.fake_attention import say
from tests.support.gateway.harness import WAIT_S, Harness
from tests.support.gateway.model import EOS, NAME
from tests.support.gateway.responses import ask, assembled, events

LONG_S = 60.0
KEYS = ("sk-of-one-client", "sk-of-another-client")
Make = Callable[..., Harness]


@pytest.fixture
def make(make_gateway: Make, tmp_path: Path, tokenizer: Tokenizer) -> Make:
    def make(pause_s: float = 0.0, **fields: Any) -> Harness:
        store = str(tmp_path / "responses.sqlite")
        harness = make_gateway(response_store=store, drain_s=0.1, **fields)
        answer = thinking_answer(tokenizer, "hm", "hello to you")
        harness.script(say(answer, eos=EOS, pause_s=pause_s))
        return harness

    return make


def again(gateway: Harness, id: str, query: str = "", key: str = "") -> httpx.Response:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return gateway.get(f"/v1/responses/{id}?stream=true{query}", headers=headers)


def refusal(reply: httpx.Response) -> tuple[int, str]:
    return reply.status_code, reply.json()["error"]["param"]


def test_it_goes_on_without_its_client_and_is_read_on_from_any_event(make: Make) -> None:
    gateway = make(pause_s=0.02)
    client = gateway.client()
    stream = client.responses.create(model=NAME, input="hello", background=True, stream=True)
    first = [event for event, _ in zip(stream, range(4), strict=False)]
    stream.close()
    created: Any = first[0]
    assert created.type == "response.created"
    id = created.response.id
    rest = list(client.responses.retrieve(id, stream=True, starting_after=3))
    assert [one.sequence_number for one in (*first, *rest)] == list(range(4 + len(rest)))
    whole = events(again(gateway, id).text)  # it has ended, and is there still
    assert whole[4:] == [one.to_dict() for one in rest]
    response = assembled(whole)
    assert response["background"] is True
    assert gateway.get(f"/v1/responses/{id}").json() == response
    assert again(gateway, id, f"&starting_after={len(whole) - 1}").text == ""


def test_the_id_is_told_before_the_model_says_anything(make: Make) -> None:
    gateway = make()
    gateway.script(lambda request: [LONG_S])
    client = gateway.client()
    stream = client.responses.create(model=NAME, input="hello", background=True, stream=True)
    created: Any = next(iter(stream))
    assert client.responses.cancel(created.response.id).status == "cancelled"
    assert [event.type for event in stream] == ["response.in_progress"]  # and no end
    gateway.wait_for(lambda: gateway.fake.cancelled == 1)


def test_a_failure_is_its_last_event(make: Make) -> None:
    gateway = make()
    gateway.script(lambda request: [])  # the service ends the stream without a word
    stream = events(ask(gateway, background=True, stream=True).text)
    assert [event["type"] for event in stream[-2:]] == ["error", "response.failed"]
    response = stream[-1]["response"]
    assert gateway.get(f"/v1/responses/{response['id']}").json() == response


def test_a_stopping_gateway_ends_it(make: Make) -> None:
    gateway = make()
    gateway.script(lambda request: [LONG_S])
    client = gateway.client()
    stream = client.responses.create(model=NAME, input="hello", background=True, stream=True)
    next(iter(stream))
    gateway.run(gateway.service.stop())
    assert [event.type for event in stream][-2:] == ["error", "response.failed"]


def test_events_that_are_no_longer_kept_are_told(make: Make) -> None:
    gateway = make(limits=Limits(background_event_bytes=4000))
    stream = events(ask(gateway, background=True, stream=True).text)  # whoever reads on has all
    id = stream[0]["response"]["id"]
    assert refusal(again(gateway, id)) == (400, "starting_after")
    assert refusal(again(gateway, id, "&starting_after=0")) == (400, "starting_after")
    last = again(gateway, id, f"&starting_after={len(stream) - 2}").text
    assert last.startswith("event: response.completed\n")
    assert last.count("event: ") == 1


def test_logs_that_have_ended_make_room(make: Make) -> None:
    gateway = make(limits=Limits(ended_event_bytes=12_000))
    ids = [
        events(ask(gateway, background=True, stream=True).text)[0]["response"]["id"]
        for _ in range(6)
    ]
    assert refusal(again(gateway, ids[0])) == (400, "stream")
    assert assembled(events(again(gateway, ids[-1]).text))["id"] == ids[-1]


def test_what_was_not_streamed_in_the_background_has_no_events(make: Make) -> None:
    gateway = make()
    for fields in ({}, {"background": True}):
        id = ask(gateway, **fields).json()["id"]
        assert refusal(again(gateway, id)) == (400, "stream")


def test_only_its_own_client_reads_it(make: Make) -> None:
    gateway = make(api_key=KEYS, wait_ready=False)
    headers = {"authorization": f"Bearer {KEYS[0]}"}
    stream = events(ask(gateway, background=True, stream=True, headers=headers).text)
    id = stream[0]["response"]["id"]
    assert again(gateway, id, key=KEYS[1]).status_code == 404
    assert events(again(gateway, id, key=KEYS[0]).text) == stream
    gateway.client(api_key=KEYS[0]).responses.delete(id)
    assert again(gateway, id, key=KEYS[0]).status_code == 404


@pytest.mark.parametrize("query", ["stream=1", "stream=true&starting_after=-1", "starting_after=x"])
def test_wrong_parameters_are_named(make: Make, query: str) -> None:
    gateway = make()
    reply = gateway.get(f"/v1/responses/resp_1?{query}")
    field = query.rpartition("&")[2].partition("=")[0]
    assert refusal(reply) == (400, field)


def test_a_client_has_so_many_at_once(make: Make) -> None:
    gateway = make(limits=Limits(background_per_key=1))
    gateway.script(lambda request: [LONG_S])
    client = gateway.client()
    stream = client.responses.create(
        model=NAME, input="hello", background=True, stream=True, timeout=WAIT_S
    )
    created: Any = next(iter(stream))
    with pytest.raises(openai.RateLimitError, match="in the background"):
        client.responses.create(model=NAME, input="hello", background=True, stream=True)
    client.responses.cancel(created.response.id)
