"""Input that only names items: those of kept answers and of conversations, and nobody else's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest

from moe_model.text.tokenizer import Tokenizer
from tests.support.gateway.answers import invoke, tool_answer
from tests.support.gateway.fake_attention import say
from tests.support.gateway.harness import Harness, ready_status
from tests.support.gateway.model import EOS, NAME, ROOMY_CONTEXT, write_tiny_model
from tests.support.gateway.responses import WEATHER

KEYS = ("sk-of-one-client", "sk-of-another-client")


@pytest.fixture
def gateway(make_gateway: Callable[..., Harness], tmp_path: Path, tokenizer: Tokenizer) -> Harness:
    harness = make_gateway(
        model_folder=write_tiny_model(tmp_path / "roomy", context=ROOMY_CONTEXT),
        status=ready_status(ROOMY_CONTEXT),
        response_store=str(tmp_path / "responses.sqlite"),
        api_key=KEYS,
        wait_ready=False,
    )
    harness.script(say(tool_answer(tokenizer, invoke("weather", place="Rome")), eos=EOS))
    return harness


@pytest.fixture
def client(gateway: Harness) -> openai.OpenAI:
    return gateway.client(api_key=KEYS[0])


def reference(id: str) -> dict[str, Any]:
    return {"type": "item_reference", "id": id}


def ids_of(gateway: Harness) -> list[int]:
    return list(gateway.fake.requests[-1].prompt_token_ids)


def test_items_that_are_named_are_as_good_as_sent(gateway: Harness, client: openai.OpenAI) -> None:
    question: Any = {"role": "user", "content": "how warm?"}
    tools: Any = [WEATHER]
    first = client.responses.create(model=NAME, input=[question], tools=tools)
    call = first.output[-1]
    assert call.type == "function_call"
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "20 degrees"}
    said: Any = [item.model_dump() for item in first.output]
    client.responses.create(model=NAME, input=[question, *said, result], tools=tools, store=False)
    sent = ids_of(gateway)
    named: Any = [reference(item["id"]) for item in said]
    second = client.responses.create(model=NAME, input=[question, *named, result], tools=tools)
    assert ids_of(gateway) == sent
    # What was named belongs to the new answer, whatever becomes of the old one.
    client.responses.delete(first.id)
    kept = client.responses.input_items.list(second.id, order="asc")
    assert [item.type for item in kept] == [
        "message",
        *(item["type"] for item in said),
        "function_call_output",
    ]
    client.responses.create(model=NAME, input="so?", previous_response_id=second.id, tools=tools)
    assert ids_of(gateway)[: len(sent)] == sent


def test_items_of_conversations_are_named_too(gateway: Harness, client: openai.OpenAI) -> None:
    items: Any = [{"type": "message", "role": "user", "content": "the sea is blue"}]
    conversation = client.conversations.create(items=items)
    (item,) = client.conversations.items.list(conversation.id).data
    client.responses.create(model=NAME, input="the sea is blue")
    sent = ids_of(gateway)
    client.responses.create(model=NAME, input=[{"id": item.id}])  # type: ignore[list-item]
    assert ids_of(gateway) == sent
    other = client.conversations.create(items=[reference(item.id)])  # type: ignore[list-item]
    client.conversations.delete(conversation.id)
    assert [one.id for one in client.conversations.items.list(other.id)] == [item.id]


@pytest.mark.parametrize("how", ["another's", "deleted", "not kept", "never"])
def test_an_item_that_is_not_kept_here_is_unknown(
    gateway: Harness, client: openai.OpenAI, how: str
) -> None:
    response = client.responses.create(model=NAME, input="hello", store=how != "not kept")
    id = "msg_never" if how == "never" else response.output[0].id
    if how == "deleted":
        client.responses.delete(response.id)
    asking = gateway.client(api_key=KEYS[1]) if how == "another's" else client
    given: Any = [{"role": "user", "content": "a"}, reference(id)]
    for ask in (
        lambda: asking.responses.create(model=NAME, input=given),
        lambda: asking.responses.input_tokens.count(model=NAME, input=given),
        lambda: asking.conversations.create(items=given),
    ):
        with pytest.raises(openai.NotFoundError, match=f"item with id '{id}' not found") as told:
            ask()
        assert str(told.value.param).endswith("[1].id")
