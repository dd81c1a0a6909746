"""Responses that are kept: asked for again, continued, listed, forgotten, and nobody else's."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from moe_model.text.tokenizer import Tokenizer
from tests.support.gateway.answers import invoke, thinking_answer, tool_answer
from tests.support.gateway.fake_attention import say
from tests.support.gateway.harness import Harness, LoopThread, ready_status
from tests.support.gateway.model import EOS, NAME, ROOMY_CONTEXT, write_tiny_model
from tests.support.gateway.responses import WEATHER, ask, assembled, events

KEYS = ("sk-of-one-client", "sk-of-another-client")


@pytest.fixture(scope="module")
def _gateway(
    loop_thread: LoopThread, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Harness]:
    folder = tmp_path_factory.mktemp("stored")
    model = write_tiny_model(folder / "model", context=ROOMY_CONTEXT)
    harness = Harness(
        loop_thread,
        model,
        status=ready_status(ROOMY_CONTEXT),
        response_store=str(folder / "responses.sqlite"),
        api_key=KEYS,
    )
    yield harness
    harness.close()


@pytest.fixture
def gateway(_gateway: Harness, tokenizer: Tokenizer) -> Harness:
    _gateway.reset()
    _gateway.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
    return _gateway


@pytest.fixture
def client(gateway: Harness) -> openai.OpenAI:
    return gateway.client(api_key=KEYS[0])


def headers(key: str = KEYS[0]) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def prompt_of(gateway: Harness, tokenizer: Tokenizer) -> str:
    return tokenizer.decode(gateway.fake.requests[-1].prompt_token_ids)


def fetched(gateway: Harness, id: str, key: str = KEYS[0], **options: Any) -> httpx.Response:
    return gateway.get(f"/v1/responses/{id}", headers=headers(key), **options)


def test_what_is_kept_is_what_was_answered_whole_and_streamed(gateway: Harness) -> None:
    whole = ask(gateway, headers=headers()).json()
    streamed = assembled(events(ask(gateway, stream=True, headers=headers()).text))
    for response in (whole, streamed):
        assert response["store"] is True
        assert fetched(gateway, response["id"]).json() == response


def test_an_answer_goes_on_from_an_earlier_one(
    gateway: Harness, tokenizer: Tokenizer, client: openai.OpenAI
) -> None:
    first = client.responses.create(model=NAME, input="who are you?", instructions="be brief")
    second = client.responses.create(model=NAME, input="and?", previous_response_id=first.id)
    kept = prompt_of(gateway, tokenizer)
    assert second.previous_response_id == first.id
    third = client.responses.create(model=NAME, input="so?", previous_response_id=second.id)
    said = [item for one in (first, second) for item in one.model_dump()["output"]]
    sent = [
        {"role": "user", "content": "who are you?"},
        *said[:2],
        {"role": "user", "content": "and?"},
        *said[2:],
        {"role": "user", "content": "so?"},
    ]
    stored_ids = list(gateway.fake.requests[-1].prompt_token_ids)
    assert "be brief" not in kept  # instructions are of one request
    ask(gateway, input=sent, store=False, headers=headers())
    assert list(gateway.fake.requests[-1].prompt_token_ids) == stored_ids
    assert third.output_text == "hi"


def test_a_tool_loop_goes_on_with_the_calls_and_their_thinking(
    gateway: Harness, tokenizer: Tokenizer, client: openai.OpenAI
) -> None:
    gateway.script(say(tool_answer(tokenizer, invoke("weather", place="Rome")), eos=EOS))
    tools: Any = [WEATHER]
    first = client.responses.create(model=NAME, input="how warm?", tools=tools)
    call = first.output[-1]
    assert call.type == "function_call"
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "20 degrees"}
    client.responses.create(model=NAME, input=[result], tools=tools, previous_response_id=first.id)
    prompt = prompt_of(gateway, tokenizer)
    assert prompt.index("how warm?") < prompt.index("Rome") < prompt.index("20 degrees")
    assert "call\n" in prompt  # what was thought before it


def test_input_items_are_listed_page_by_page(gateway: Harness, client: openai.OpenAI) -> None:
    given = [{"role": "user", "content": f"number {number}"} for number in range(5)]
    id = client.responses.create(model=NAME, input=given).id  # type: ignore[arg-type]
    asked = client.responses.input_items.list(id, limit=2, order="asc")
    listed = [item.model_dump()["content"][0]["text"] for item in asked]  # it asks for every page
    assert listed == [f"number {number}" for number in range(5)]
    newest = client.responses.input_items.list(id, limit=1).data[0]
    assert newest.model_dump()["content"][0]["text"] == "number 4"
    text = client.responses.create(model=NAME, input="hello").id
    (item,) = client.responses.input_items.list(text).data
    assert item.id.startswith("msg_")
    for query, field in (("limit=0", "limit"), ("limit=x", "limit"), ("order=up", "order")):
        refused = gateway.get(f"/v1/responses/{id}/input_items?{query}", headers=headers())
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, field)


def test_a_deleted_response_is_unknown_and_ends_its_chain(client: openai.OpenAI) -> None:
    first = client.responses.create(model=NAME, input="a")
    second = client.responses.create(model=NAME, input="b", previous_response_id=first.id)
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError, match=f"{first.id}' not found"):
        client.responses.retrieve(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.delete(first.id)
    assert client.responses.retrieve(second.id).id == second.id
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model=NAME, input="c", previous_response_id=second.id)
    assert (refused.value.code, refused.value.param) == (
        "previous_response_not_found",
        "previous_response_id",
    )


def test_anothers_response_looks_like_an_unknown_one(
    gateway: Harness, client: openai.OpenAI
) -> None:
    id = client.responses.create(model=NAME, input="a secret").id
    unknown = "resp_" + "0" * len(id.removeprefix("resp_"))
    requests: list[Callable[[str], httpx.Response]] = [
        lambda one: fetched(gateway, one, KEYS[1]),
        lambda one: gateway.get(f"/v1/responses/{one}/input_items", headers=headers(KEYS[1])),
        lambda one: httpx.delete(
            f"{gateway.base_url}/v1/responses/{one}", headers=headers(KEYS[1])
        ),
        lambda one: gateway.post(f"/v1/responses/{one}/cancel", b"", headers=headers(KEYS[1])),
        lambda one: ask(gateway, previous_response_id=one, headers=headers(KEYS[1])),
        lambda one: ask(gateway, conversation=one, headers=headers(KEYS[1])),
        lambda one: gateway.get(f"/v1/conversations/{one}", headers=headers(KEYS[1])),
    ]
    for request in requests:
        theirs, none = request(id), request(unknown)
        assert theirs.status_code in (400, 404)
        assert theirs.status_code == none.status_code
        told, told_of_none = theirs.json()["error"], none.json()["error"]
        told_of_none["message"] = told_of_none["message"].replace(unknown, id)
        assert told == told_of_none
    assert fetched(gateway, id).status_code == 200


def test_nothing_is_kept_of_a_request_that_says_so(gateway: Harness) -> None:
    path = Path(gateway.config.response_store)
    response = ask(gateway, input="a private word", store=False, headers=headers()).json()
    assert response["store"] is False
    assert fetched(gateway, response["id"]).status_code == 404
    on_disk = b"".join(file.read_bytes() for file in path.parent.glob("responses.sqlite*"))
    assert b"a private word" not in on_disk
    assert response["id"].encode() not in on_disk


def test_an_answer_that_cannot_be_kept_is_given_with_a_warning(
    make_gateway: Callable[..., Harness], tmp_path: Path, tokenizer: Tokenizer
) -> None:
    gateway = make_gateway(
        response_store=str(tmp_path / "r.sqlite"), response_store_size="1MiB", listen="127.0.0.1:0"
    )
    gateway.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
    metadata = [{"type": "reasoning", "id": "rs_1", "summary": [], "unused": "x" * 600_000}]
    given = [*metadata, {"role": "user", "content": "hi"}]
    for response in (
        ask(gateway, input=given).json(),
        assembled(events(ask(gateway, input=given, stream=True).text)),
    ):
        assert response["status"] == "completed"
        assert response["store"] is False
        assert response["warnings"] == ["store: this response is not kept: the store is full"]
    assert gateway.metric("response_store_failures_total") == 2


def test_without_a_store_answers_say_so(
    make_gateway: Callable[..., Harness], tokenizer: Tokenizer
) -> None:
    gateway = make_gateway()
    gateway.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
    silent, asked = ask(gateway).json(), ask(gateway, store=True).json()
    assert (silent["store"], silent["warnings"]) == (False, [])
    assert (asked["store"], len(asked["warnings"])) == (False, 1)
    for fields in (
        {"previous_response_id": "resp_1"},
        {"conversation": "conv_1"},
        {"background": True},
    ):
        refused = ask(gateway, **fields)
        assert refused.status_code == 400
        assert "--response-store" in refused.json()["error"]["message"]
    assert gateway.get("/v1/responses/resp_1").status_code == 404


def test_what_came_before_is_bounded(gateway: Harness, client: openai.OpenAI) -> None:
    assert gateway.service.gateway.limits.chain_entries == 1024
    first = client.responses.create(model=NAME, input="a")
    with pytest.raises(openai.BadRequestError, match="goes without previous_response_id"):
        client.responses.create(
            model=NAME, input="b", previous_response_id=first.id, conversation="conv_1"
        )


@pytest.mark.parametrize(
    "id", ["", "x" * 300, "resp_\0", "resp_'; DROP TABLE stored_entries", "\ud800", "../etc"]
)
def test_whatever_is_given_as_an_id_is_answered(gateway: Harness, id: str) -> None:
    for fields in (
        {"previous_response_id": id},
        {"conversation": id},
        {"conversation": {"id": id}},
    ):
        assert ask(gateway, headers=headers(), **fields).status_code == 400
