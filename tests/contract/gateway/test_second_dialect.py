"""A second API needs only its own folder, for its fields, events and errors."""

from pathlib import Path
from typing import Any

import grpc
import httpx
import orjson
import pytest

from gateway.app import DIALECTS
from moe_model.text.tokenizer import Tokenizer
from protos import attention_pb2
from tests.support.gateway.answers import WEATHER, invoke, thinking_answer, tool_answer
from tests.support.gateway.fake_attention import ended, say, tokens
from tests.support.gateway.harness import Harness, ready_status
from tests.support.gateway.model import EOS, NAME, write_tiny_model
from tests.support.gateway.toy_dialect import OVERLOADED, TOY

CONTEXT = 4096
TURNS = [{"role": "user", "content": "hello"}]
BAD_CALLER = attention_pb2.Finished(
    reason=attention_pb2.FINISH_REASON_ERROR, error="no way out", caller_error=True
)


@pytest.fixture
def toy(make_gateway: Any, tmp_path: Path) -> Harness:
    """A gateway with a second dialect, and a context with room for tools."""
    folder = write_tiny_model(tmp_path / "roomy", context=CONTEXT)
    made: Harness = make_gateway(
        dialects=(*DIALECTS, TOY), model_folder=folder, status=ready_status(CONTEXT)
    )
    return made


def ask(toy: Harness, **fields: Any) -> httpx.Response:
    body = {"model": NAME, "turns": TURNS, "cap": 500, **fields}
    return toy.post("/toy/ask", {name: value for name, value in body.items() if value is not None})


def parts_of(text: str) -> list[tuple[str, Any]]:
    """(event, data) of each server-sent event."""
    pairs = [block.split("\n") for block in text.strip().split("\n\n")]
    return [(e.removeprefix("event: "), orjson.loads(d.removeprefix("data: "))) for e, d in pairs]


def test_an_answer_has_the_dialects_own_shape(toy: Harness, tokenizer: Tokenizer) -> None:
    toy.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
    whole = ask(toy, temperature=0.25).json()
    assert "".join(part.get("think", "") for part in whole["parts"]).strip() == "hm"
    assert "".join(part.get("say", "") for part in whole["parts"]) == "hi"
    assert whole["why"] == "done"
    assert toy.fake.requests[0].sampling.temperature == 0.25
    streamed = parts_of(ask(toy, live=True).text)
    said = "".join(data.get("say", "") for _, data in streamed)
    assert (said, streamed[-1]) == ("hi", ("over", {"why": "done"}))
    assert ask(toy, cap=1).json()["why"] == "cut"


def test_calls_get_ids_of_the_dialects_kind_and_their_thinking_comes_back(
    toy: Harness, tokenizer: Tokenizer
) -> None:
    toy.script(say(tool_answer(tokenizer, invoke("weather", place="Rome")), eos=EOS))
    first = ask(toy, gadgets=[WEATHER]).json()
    (use,) = [part for part in first["parts"] if "use" in part]
    thought = "".join(part.get("think", "") for part in first["parts"])
    assert (first["why"], use["id"][:4]) == ("waits", "toy-")
    call = {"id": use["id"], "function": {"name": "weather", "arguments": '{"place": "Rome"}'}}
    history = [
        *TURNS,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": use["id"], "content": "sunny"},
    ]
    ask(toy, turns=history, gadgets=[WEATHER])
    prompt = tokenizer.decode(toy.fake.requests[-1].prompt_token_ids)
    assert f"<think>\n{thought.strip()}\n</think>" in prompt


@pytest.mark.parametrize(
    "fields, where",
    [
        ({"turns": []}, "turns"),
        ({"turns": ["x"]}, "turns[0]"),
        ({"turns": [{"role": "robot", "content": "x"}]}, "turns[0].role"),
        ({"turns": [{"role": "user", "content": "x" * CONTEXT}]}, "turns"),
        ({"turns": [{"role": "user", "content": "x " * (CONTEXT // 2)}]}, "turns"),
        ({"gadgets": [1]}, "gadgets[0]"),
        ({"gadgets": [{"function": {"name": "f"}}] * 200}, "gadgets"),
        ({"cap": -1}, "cap"),
        ({"cap": "many"}, "cap"),
        ({"temperature": 9.0}, "temperature"),
        ({"model": "other"}, "model"),
    ],
)
def test_errors_name_the_clients_own_fields(
    toy: Harness, fields: dict[str, Any], where: str
) -> None:
    reply = ask(toy, **fields)
    assert reply.status_code == (404 if where == "model" else 400)
    assert (reply.json()["where"], reply.json()["call"]) == (where, reply.headers["x-request-id"])


def test_what_the_attention_service_refuses_names_the_clients_field(toy: Harness) -> None:
    toy.script(lambda request: [BAD_CALLER])
    reply = ask(toy, gadgets=[WEATHER], must_use=True)
    assert (reply.status_code, reply.json()["where"]) == (400, "gadgets")
    toy.script(lambda request: [(grpc.StatusCode.INVALID_ARGUMENT, "grammar: too long")])
    assert ask(toy, gadgets=[WEATHER], must_use=True).json()["where"] == "gadgets"


def test_errors_below_the_dialect_have_its_shape_on_its_paths_only(make_gateway: Any) -> None:
    toy: Harness = make_gateway(dialects=(*DIALECTS, TOY), api_key=("a-good-secret",))
    for path in ("/toy/ask", "/toy/unknown", "/toy"):
        assert toy.post(path, {}).json()["oops"] == "unauthenticated"
    for path in ("/v1/chat/completions", "/toys", "/unknown"):
        assert toy.post(path, {}).json()["error"]["type"] == "authentication_error"
    key = {"Authorization": "Bearer a-good-secret"}
    assert toy.post("/toy/unknown", {}, headers=key).json()["oops"] == "not found"
    assert toy.get("/toy/ask", headers=key).status_code == 405
    assert toy.get("/toy/ask", headers=key).json()["oops"] == "invalid request"
    assert toy.post("/toy/ask", b"{", headers=key).json()["oops"] == "invalid request"


def test_statuses_and_stream_errors_are_the_dialects(toy: Harness) -> None:
    toy.script(lambda request: [(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")])
    reply = ask(toy)
    assert (reply.status_code, reply.json()["oops"]) == (OVERLOADED, "overloaded")
    assert reply.headers["retry-after"]
    assert toy.chat().status_code == 429
    toy.script(
        lambda request: [tokens(0, [65]), 0.3, ended(attention_pb2.FINISH_REASON_ERROR, "broke")]
    )
    event, data = parts_of(ask(toy, live=True).text)[-1]
    assert (event, data["oops"], data["text"]) == ("oops", "internal", "broke")
    assert data["call"]


def test_its_requests_are_described_and_counted(toy: Harness, tokenizer: Tokenizer) -> None:
    toy.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
    ask(toy)
    assert 'requests_total{api="toy",outcome="ok"} 1.0' in toy.get("/metrics").text
    assert "ToyRequest" in toy.get("/openapi.json").json()["components"]["schemas"]
