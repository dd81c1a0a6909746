"""Conversations: requests that name them have their items, and answers are added to these."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest

from moe_model.text.tokenizer import Tokenizer
from tests.support.gateway.answers import thinking_answer
from tests.support.gateway.fake_attention import say
from tests.support.gateway.harness import Harness, ready_status
from tests.support.gateway.model import EOS, NAME, ROOMY_CONTEXT, write_tiny_model


@pytest.fixture
def gateway(make_gateway: Callable[..., Harness], tmp_path: Path, tokenizer: Tokenizer) -> Harness:
    harness = make_gateway(
        model_folder=write_tiny_model(tmp_path / "roomy", context=ROOMY_CONTEXT),
        status=ready_status(ROOMY_CONTEXT),
        response_store=str(tmp_path / "responses.sqlite"),
    )
    harness.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
    return harness


@pytest.fixture
def client(gateway: Harness) -> openai.OpenAI:
    return gateway.client()


def test_a_conversation_grows_with_its_answers_and_is_part_of_each_request(
    gateway: Harness, client: openai.OpenAI, tokenizer: Tokenizer
) -> None:
    begun: Any = [{"type": "message", "role": "developer", "content": "talk like a sailor"}]
    conversation = client.conversations.create(items=begun, metadata={"topic": "sea"})
    first = client.responses.create(model=NAME, input="who?", conversation=conversation.id)
    assert first.conversation is not None
    assert first.conversation.id == conversation.id
    events = client.responses.create(
        model=NAME, input="why?", conversation={"id": conversation.id}, stream=True
    )
    assert [event.type for event in events][-1] == "response.completed"
    prompt = tokenizer.decode(gateway.fake.requests[-1].prompt_token_ids)
    places = [prompt.index(text) for text in ("talk like a sailor", "who?", "hi", "why?")]
    assert places == sorted(places)
    kinds = [item.type for item in client.conversations.items.list(conversation.id, order="asc")]
    turn = ["message", "reasoning", "message"]
    assert kinds == ["message", *turn, *turn]


def test_a_conversation_is_read_changed_and_forgotten(client: openai.OpenAI) -> None:
    made = client.conversations.create(metadata={"a": "b"})
    assert client.conversations.retrieve(made.id) == made
    changed = client.conversations.update(made.id, metadata={"c": "d"})
    assert changed.metadata == {"c": "d"}
    assert client.conversations.retrieve(made.id) == changed
    response = client.responses.create(model=NAME, input="hi", conversation=made.id)
    assert client.conversations.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError, match="Conversation with id"):
        client.conversations.retrieve(made.id)
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model=NAME, input="hi", conversation=made.id)
    assert refused.value.code == "conversation_not_found"
    assert client.responses.retrieve(response.id).output_text == "hi"


def test_items_are_added_read_and_taken_out(client: openai.OpenAI) -> None:
    id = client.conversations.create().id
    items = [{"type": "message", "role": "user", "content": str(number)} for number in range(3)]
    added = client.conversations.items.create(id, items=items)  # type: ignore[arg-type]
    ids = [item.id for item in added.data]
    assert len(set(ids)) == 3
    first = client.conversations.items.retrieve(ids[0] or "", conversation_id=id)
    assert first.model_dump()["content"][0]["text"] == "0"
    client.conversations.items.delete(ids[0] or "", conversation_id=id)
    with pytest.raises(openai.NotFoundError, match="Item with id"):
        client.conversations.items.retrieve(ids[0] or "", conversation_id=id)
    with pytest.raises(openai.NotFoundError, match="Item with id"):
        client.conversations.items.delete(ids[0] or "", conversation_id=id)
    left = client.conversations.items.list(id, order="asc")
    assert [item.id for item in left] == ids[1:]


def test_wrong_fields_are_named(gateway: Harness) -> None:
    id = gateway.post("/v1/conversations", {}).json()["id"]
    for path, body, field in (
        ("", {"items": [1]}, "items[0]"),
        ("", {"items": [{}] * 21}, "items"),
        ("", {"metadata": {"a": 1}}, "metadata.a"),
        (f"/{id}", {}, "metadata"),
        (f"/{id}/items", {"items": "x"}, "items"),
    ):
        refused = gateway.post(f"/v1/conversations{path}", body)
        assert refused.status_code == 400, refused.text
        assert refused.json()["error"]["param"] == field
