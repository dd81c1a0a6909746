"""Responses that are made in the background: polled, cancelled, bounded, and never left open."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest

from gateway.limits import Limits
from moe_model.text.tokenizer import Tokenizer
from tests.support.gateway.answers import thinking_answer
from tests.support.gateway.fake_attention import say
from tests.support.gateway.harness import WAIT_S, Harness
from tests.support.gateway.model import EOS, NAME
from tests.support.gateway.responses import ask

LONG_S = 60.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "responses.sqlite"


@pytest.fixture
def gateway(make_gateway: Callable[..., Harness], path: Path) -> Harness:
    return make_gateway(response_store=str(path), limits=Limits(background_per_key=2), drain_s=0.1)


def begun(client: openai.OpenAI, **fields: Any) -> Any:
    response = client.responses.create(model=NAME, input="hello", background=True, **fields)
    assert response.status == "in_progress"
    return response


def ended(client: openai.OpenAI, id: str) -> Any:
    deadline_s = time.monotonic() + WAIT_S
    while (response := client.responses.retrieve(id)).status == "in_progress":
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    return response


def test_it_is_in_progress_until_it_has_ended_and_can_be_continued(
    gateway: Harness, tokenizer: Tokenizer
) -> None:
    client = gateway.client()
    gateway.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS, pause_s=0.05))
    response = begun(client)
    with pytest.raises(openai.BadRequestError, match="has not ended"):
        client.responses.create(model=NAME, input="and?", previous_response_id=response.id)
    done = ended(client, response.id)
    assert (done.status, done.output_text, done.background) == ("completed", "hi", True)
    following = client.responses.create(model=NAME, input="so?", previous_response_id=done.id)
    assert following.output_text == "hi"
    assert client.responses.cancel(done.id).status == "completed"  # it has ended already


def test_it_is_cancelled(gateway: Harness) -> None:
    client = gateway.client()
    gateway.script(lambda request: [LONG_S])
    response = begun(client)
    gateway.wait_for(lambda: gateway.fake.running == 1)
    assert client.responses.cancel(response.id).status == "cancelled"
    gateway.wait_for(lambda: gateway.fake.cancelled == 1)
    assert client.responses.retrieve(response.id).status == "cancelled"
    assert gateway.metric("requests_running") + gateway.metric("requests_waiting") == 0


def test_what_is_not_in_the_background_cannot_be_cancelled(
    gateway: Harness, tokenizer: Tokenizer
) -> None:
    gateway.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
    response = gateway.client().responses.create(model=NAME, input="hello")
    with pytest.raises(openai.BadRequestError, match="only responses with background"):
        gateway.client().responses.cancel(response.id)


def test_a_deleted_one_is_cancelled(gateway: Harness) -> None:
    client = gateway.client()
    gateway.script(lambda request: [LONG_S])
    response = begun(client)
    gateway.wait_for(lambda: gateway.fake.running == 1)
    client.responses.delete(response.id)
    gateway.wait_for(lambda: gateway.fake.cancelled == 1)


def test_a_client_has_so_many_at_once(gateway: Harness) -> None:
    client = gateway.client()
    gateway.script(lambda request: [LONG_S])
    first = [begun(client).id for _ in range(2)]
    with pytest.raises(openai.RateLimitError, match="in the background"):
        begun(client)
    client.responses.cancel(first[0])
    gateway.wait_for(lambda: gateway.fake.cancelled == 1)
    begun(client)


def test_its_failure_is_kept(gateway: Harness) -> None:
    client = gateway.client()
    gateway.script(lambda request: [])  # the service ends the stream without a word
    done = ended(client, begun(client).id)
    assert done.status == "failed"
    assert done.error is not None


def test_one_that_a_stopping_gateway_ends_has_failed(
    gateway: Harness, make_gateway: Callable[..., Harness], path: Path
) -> None:
    client = gateway.client()
    gateway.script(lambda request: [LONG_S])
    response = begun(client)
    gateway.wait_for(lambda: gateway.fake.running == 1)
    gateway.run(gateway.service.stop())
    next_gateway = make_gateway(response_store=str(path))
    assert next_gateway.client().responses.retrieve(response.id).status == "failed"


def test_it_needs_the_store(gateway: Harness) -> None:
    refused = ask(gateway, background=True, store=False)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "store")
