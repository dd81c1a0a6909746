"""/openapi.json is true: real answers are of its models, and its bounds are those of the checks."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.anthropic.answers import ANSWERS as MESSAGES
from gateway.anthropic.dialect import ANTHROPIC
from gateway.anthropic.fields import MessagesRequest
from gateway.ollama.answers import ANSWERS as OLLAMA_ANSWERS
from gateway.ollama.dialect import OLLAMA
from gateway.ollama.fields import OllamaChatRequest, Options
from gateway.openai.answers import ANSWERS as OPENAI_ANSWERS
from gateway.openai.dialect import OPENAI
from gateway.openai.models import ChatRequest, CompletionRequest
from gateway.responses.dialect import RESPONSES
from gateway.responses.fields import ResponsesRequest
from gateway.sglang.answers import ANSWERS as SGLANG_ANSWERS
from gateway.sglang.dialect import SGLANG
from gateway.sglang.fields import SamplingFields, SGLangRequest
from moe_model.text.tokenizer import Tokenizer
from tests.support.gateway.answers import WEATHER, events_of, invoke, thinking_answer, tool_answer
from tests.support.gateway.fake_attention import say
from tests.support.gateway.harness import Harness, ready_status
from tests.support.gateway.messages import events
from tests.support.gateway.model import EOS, NAME, ROOMY_CONTEXT, write_tiny_model

USER = [{"role": "user", "content": "hi"}]
RICH: dict[str, Any] = {"expertmesh_timings": True, "return_token_ids": True}
CHATS: tuple[dict[str, Any], ...] = (
    {},
    {"logprobs": True, "top_logprobs": 2, **RICH, "stop": "i"},
    {"tools": [WEATHER], "n": 2, "stream_options": {"include_usage": True}},
)


@pytest.mark.parametrize("fields", CHATS)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/text/chat/completions"])
def test_chats_answers_are_of_its_models(
    roomy_gateway: Harness, tokenizer: Tokenizer, path: str, fields: dict[str, Any]
) -> None:
    ids = thinking_answer(tokenizer, "hm", "hi")
    if "tools" in fields:
        ids = tool_answer(tokenizer, invoke("weather", place="Rome"))
    roomy_gateway.script(say(ids, eos=EOS))
    told = OPENAI_ANSWERS[path]
    body = {"model": NAME, "messages": USER, **fields}
    body.pop("stream_options", None)
    told.whole.model_validate_json(roomy_gateway.post(path, body).content)
    stream = roomy_gateway.post(path, {"model": NAME, "messages": USER, "stream": True, **fields})
    chunks = events_of(stream.text)
    assert len(chunks) > 2
    for chunk in chunks:
        told.event.model_validate(chunk)


@pytest.mark.parametrize("fields", [{}, {"logprobs": 2}, {"echo": True, **RICH}])
def test_completions_answers_are_of_its_models(gateway: Harness, fields: dict[str, Any]) -> None:
    gateway.script(say(list(b"hello"), eos=EOS))
    told = OPENAI_ANSWERS["/v1/completions"]
    body = {"model": NAME, "prompt": "a", **fields}
    told.whole.model_validate_json(gateway.post("/v1/completions", body).content)
    chunks = events_of(gateway.post("/v1/completions", {**body, "stream": True}).text)
    assert len(chunks) > 1
    for chunk in chunks:
        told.event.model_validate(chunk)


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
def test_ollamas_answers_are_of_its_models(
    roomy_gateway: Harness, tokenizer: Tokenizer, path: str
) -> None:
    roomy_gateway.script(say(tool_answer(tokenizer, invoke("weather", place="Rome")), eos=EOS))
    told = OLLAMA_ANSWERS[path]
    body = {"model": NAME, "messages": USER, "tools": [WEATHER], "prompt": "hi", "logprobs": True}
    for line in roomy_gateway.post(path, body).content.splitlines():
        told.event.model_validate_json(line)
    told.whole.model_validate_json(roomy_gateway.post(path, {**body, "stream": False}).content)
    told.whole.model_validate_json(roomy_gateway.post(path, {"model": NAME}).content)
    for asked in ("/api/tags", "/api/ps", "/api/version"):
        OLLAMA_ANSWERS[asked].whole.model_validate_json(roomy_gateway.get(asked).content)
    show = roomy_gateway.post("/api/show", {"model": NAME})
    OLLAMA_ANSWERS["/api/show"].whole.model_validate_json(show.content)
    OLLAMA.error_model.model_validate_json(roomy_gateway.post(path, {"model": "x"}).content)


@pytest.mark.parametrize("text", ["a", ["a", "b"]])
def test_sglangs_answers_are_of_its_models(gateway: Harness, text: Any) -> None:
    gateway.script(say(list(b"hello"), eos=EOS))
    told = SGLANG_ANSWERS["/generate"]
    body = {"text": text, "return_logprob": True, "top_logprobs_num": 2}
    told.whole.model_validate_json(gateway.post("/generate", body).content)
    for event in events_of(gateway.post("/generate", {"text": text, "stream": True}).text):
        told.event.model_validate(event)
    SGLANG.error_model.model_validate_json(gateway.post("/generate", {}).content)
    for dialect in (SGLANG, OPENAI):
        for path, _ in dialect.gets:
            if "{" not in path:
                dialect.answers[path].whole.model_validate_json(gateway.get(path).content)


@pytest.mark.parametrize("thinking", [None, {"type": "enabled"}])
def test_messages_answers_are_of_its_models(
    roomy_gateway: Harness, tokenizer: Tokenizer, thinking: Any
) -> None:
    answer = tool_answer(tokenizer, invoke("weather", place="Rome"), answer="well")
    roomy_gateway.script(say(answer, eos=EOS))
    tool = {"name": "weather", "input_schema": WEATHER["function"]["parameters"]}
    body = {
        "model": NAME,
        "max_tokens": 200,
        "messages": USER,
        "tools": [tool],
        **({"thinking": thinking} if thinking else {}),
    }
    told = MESSAGES["/v1/messages"]
    told.whole.model_validate_json(roomy_gateway.post("/v1/messages", body).content)
    for event in events(roomy_gateway.post("/v1/messages", {**body, "stream": True}).text):
        told.event.model_validate(event)
    count = roomy_gateway.post("/v1/messages/count_tokens", body)
    MESSAGES["/v1/messages/count_tokens"].whole.model_validate_json(count.content)


def test_kept_answers_are_of_their_models(
    make_gateway: Callable[..., Harness], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    gateway = make_gateway(
        model_folder=write_tiny_model(tmp_path / "roomy", context=ROOMY_CONTEXT),
        status=ready_status(ROOMY_CONTEXT),
        response_store=str(tmp_path / "responses.sqlite"),
    )
    gateway.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
    answers = {path: RESPONSES.answers[path].whole for path in RESPONSES.answers}
    forgets = {path: answer.whole for path, _, answer in RESPONSES.deletes}

    def made(path: str, body: Any) -> str:
        reply = gateway.post(path, body)
        answers[path].model_validate_json(reply.content)
        return str(reply.json()["id"])

    conversation = made("/v1/conversations", {"metadata": {"a": "b"}})
    body = {"model": NAME, "input": "hello", "conversation": conversation}
    response = made("/v1/responses", body)
    other = made("/v1/responses", {"model": NAME, "input": "hello", "background": True})
    listed = gateway.get(f"/v1/conversations/{conversation}/items").json()
    ids = {
        "response_id": response,
        "conversation_id": conversation,
        "item_id": listed["data"][0]["id"],
    }
    for path, _ in RESPONSES.gets:
        answers[path].model_validate_json(gateway.get(path.format_map(ids)).content)
    for path, _, body in RESPONSES.posts:
        if "{" in path:
            sent = {"metadata": {}, "items": []} if body else {}
            asked = path.format_map({**ids, "response_id": other})
            answers[path].model_validate_json(gateway.post(asked, sent).content)
    counted = gateway.post("/v1/responses/input_tokens", {"model": NAME, "input": "hello"})
    answers["/v1/responses/input_tokens"].model_validate_json(counted.content)
    for path, model in reversed(forgets.items()):
        reply = httpx.delete(gateway.base_url + path.format_map(ids))
        model.model_validate_json(reply.content)


def test_what_is_told_of_models_texts_and_health_is_of_its_models(gateway: Harness) -> None:
    version = {"anthropic-version": "2023-06-01"}
    for path, asked in (
        ("/v1/models", "/v1/models"),
        ("/v1/models/{model_id:path}", f"/v1/models/{NAME}"),
    ):
        OPENAI_ANSWERS[path].whole.model_validate_json(gateway.get(asked).content)
        reply = gateway.get(asked, headers=version)
        MESSAGES[path].whole.model_validate_json(reply.content)
    ids = gateway.post("/tokenize", {"prompt": "hello"}).content
    tokens = OPENAI_ANSWERS["/tokenize"].whole.model_validate_json(ids).tokens
    text = gateway.post("/detokenize", {"tokens": tokens}).content
    assert OPENAI_ANSWERS["/detokenize"].whole.model_validate_json(text).prompt == "hello"


@pytest.mark.parametrize(
    "dialect, path", [(OPENAI, "/v1/completions"), (ANTHROPIC, "/v1/messages")]
)
def test_errors_are_of_their_models(gateway: Harness, dialect: Any, path: str) -> None:
    replies = [gateway.post(path, body) for body in ({"model": "other"}, {"model": NAME}, b"{")]
    replies.append(gateway.get(path))
    assert [reply.status_code for reply in replies] == [404, 400, 400, 405]
    for reply in replies:
        dialect.error_model.model_validate_json(reply.content)


def test_every_path_is_described_with_its_parameters_and_answers(gateway: Harness) -> None:
    api = gateway.get("/openapi.json").json()
    text = str(api)
    assert "__" not in "".join(api["components"]["schemas"])
    assert {"ChatRequest", "OllamaChatRequest"} <= set(api["components"]["schemas"])
    for name in re.findall(r"#/components/schemas/(\w+)", text):
        assert name in api["components"]["schemas"]
    for path, methods in api["paths"].items():
        for method, about in methods.items():
            assert about["responses"]["200"]["content"] != {"application/json": {}}
            names = [p["name"] for p in about.get("parameters", ()) if p["in"] == "path"]
            assert names == re.findall(r"\{(\w+)\}", path)
            assert method == "post" or "requestBody" not in about
            assert {"200", "401", "404"} - set(about["responses"]) == set()
    stream = api["paths"]["/v1/messages"]["post"]["responses"]["200"]["content"]
    assert {"application/json", "text/event-stream"} == set(stream)
    assert set(api["paths"]["/metrics"]["get"]["responses"]["200"]["content"]) == {"text/plain"}
    for dialect in (OPENAI, ANTHROPIC, RESPONSES, OLLAMA, SGLANG):
        assert set(dialect.answers) <= {path for path, *_ in (*dialect.gets, *dialect.posts)}


@pytest.mark.parametrize(
    "path, allowed",
    [
        ("/v1/conversations/a", "DELETE, GET, POST"),
        ("/v1/responses/a", "DELETE, GET"),
        ("/v1/responses/input_tokens", "POST"),
        ("/v1/models", "GET"),
        ("/v1/models/a/b", "GET"),
    ],
)
def test_a_wrong_method_is_told_the_methods_of_its_path(
    gateway: Harness, path: str, allowed: str
) -> None:
    reply = httpx.request("PUT", gateway.base_url + path)
    assert (reply.status_code, reply.headers["allow"]) == (405, allowed)


def test_keys_are_described_where_they_are_needed(make_gateway: Callable[..., Harness]) -> None:
    gateway = make_gateway(api_key=("a-long-key",), wait_ready=False)
    api = gateway.get("/openapi.json", headers={"x-api-key": "a-long-key"}).json()
    assert api["security"] == [{"bearer": []}, {"x-api-key": []}]
    assert set(api["components"]["securitySchemes"]) == {"bearer", "x-api-key"}
    assert api["paths"]["/livez"]["get"]["security"] == []
    assert "security" not in api["paths"]["/metrics"]["get"]


ASKED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": USER, "max_tokens": 9},
    "/v1/completions": {"prompt": "a", "max_tokens": 9},
    "/v1/messages": {"messages": USER, "max_tokens": 9},
    "/v1/responses": {"input": "a", "include": ["message.output_text.logprobs"]},
    "/api/chat": {"messages": USER, "stream": False},
    "/generate": {"text": "a"},
}


def edges() -> list[Any]:
    """(path, the field it is in, field, a value at the edge, one beyond it) of each bound."""
    found = []
    for path, within, model in (
        ("/v1/chat/completions", "", ChatRequest),
        ("/v1/completions", "", CompletionRequest),
        ("/v1/messages", "", MessagesRequest),
        ("/v1/responses", "", ResponsesRequest),
        ("/api/chat", "", OllamaChatRequest),
        ("/api/chat", "options", Options),
        ("/generate", "", SGLangRequest),
        ("/generate", "sampling_params", SamplingFields),
    ):
        for name, about in model.model_json_schema()["properties"].items():
            whole = any(one.get("type") == "integer" for one in about.get("anyOf", ()))
            step = 1 if whole else 0.001
            pairs = [
                (about[word], about[word] + sign * step)
                for word, sign in (("minimum", -1), ("maximum", 1))
                if word in about
            ]
            if "maxLength" in about and name != "regex":
                pairs.append(("x" * about["maxLength"], "x" * (about["maxLength"] + 1)))
            if "maxItems" in about and name in ("stop_token_ids", "bad_words", "allowed_token_ids"):
                item = "x" if name == "bad_words" else 5
                many = [item] * about["maxItems"]
                pairs.append((many, [*many, item]))
            if name == "metadata" and "maxProperties" in about:
                longest = "x" * about["additionalProperties"]["maxLength"]
                many = {f"{i}": longest for i in range(about["maxProperties"])}
                pairs += [(many, {**many, "more": ""}), (many, {"a": f"{longest}x"})]
            found += [(path, within, name, at, beyond) for at, beyond in pairs]
    return found


@pytest.mark.parametrize(
    "path, within, name, at, beyond", edges(), ids=lambda value: str(value)[:24].replace(" ", "")
)
def test_a_bound_is_where_the_check_is(
    gateway: Harness, path: str, within: str, name: str, at: Any, beyond: Any
) -> None:
    gateway.script(say(list(b"hi"), eos=EOS))
    body: dict[str, Any] = {"model": NAME, **ASKED[path]}
    if name == "top_logprobs":
        body["logprobs"] = True

    def ask(value: Any) -> httpx.Response:
        given = {name: value}
        return gateway.post(path, {**body, **({within: given} if within else given)})

    assert ask(at).status_code == 200
    reply = ask(beyond)
    assert reply.status_code == 400
    told = reply.json()["error"]
    message = told if isinstance(told, str) else told["message"]
    assert message.startswith(f"{within}.{name}" if within else name)
