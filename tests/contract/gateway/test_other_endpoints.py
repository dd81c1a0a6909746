"""Models, tokenize, probes, version, docs, metrics."""

from typing import Any

import openai
import pytest
from openai.types import Model
from prometheus_client.parser import text_string_to_metric_families

from moe_model.text.tokenizer import Tokenizer
from protos import attention_pb2
from tests.support.gateway.answers import WEATHER, thinking_answer
from tests.support.gateway.fake_attention import say
from tests.support.gateway.harness import Harness, ready_status
from tests.support.gateway.model import CONTEXT, EOS, HOLE, NAME

USER: Any = [{"role": "user", "content": "hello"}]


class TestModels:
    def test_openais_client_lists_them(self, gateway: Harness) -> None:
        models = list(gateway.client().models.list())
        assert [model.id for model in models] == [NAME, "alias"]
        assert models[0].max_model_len == CONTEXT

    def test_one_model(self, gateway: Harness) -> None:
        model = gateway.get(f"/v1/models/{NAME}").json()
        Model.model_validate(model, strict=True)
        assert model["max_model_len"] == CONTEXT

    @pytest.mark.parametrize("name", ["other", "a/b", "../x", "%2e%2e"])
    def test_others_are_404(self, gateway: Harness, name: str) -> None:
        reply = gateway.get(f"/v1/models/{name}")
        assert reply.status_code == 404
        with pytest.raises(openai.NotFoundError):
            gateway.client().models.retrieve("other")

    def test_a_shorter_context_of_the_service_is_what_counts(self, make_gateway: Any) -> None:
        gateway = make_gateway(status=ready_status(100))
        assert gateway.get(f"/v1/models/{NAME}").json()["max_model_len"] == 100
        reply = gateway.chat(messages=[{"role": "user", "content": "z" * 100}])
        assert "maximum context length is 100 tokens" in reply.json()["error"]["message"]


class TestTokenize:
    def test_a_round_trip(self, gateway: Harness) -> None:
        text = "hello 汉字 🙂\0\n"
        ids = gateway.post("/tokenize", {"model": NAME, "prompt": text}).json()
        assert ids["count"] == len(ids["tokens"])
        assert ids["max_model_len"] == CONTEXT
        assert gateway.post("/detokenize", {"tokens": ids["tokens"]}).json() == {"prompt": text}

    def test_messages_give_what_chat_would_send(
        self, gateway: Harness, tokenizer: Tokenizer
    ) -> None:
        gateway.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
        gateway.chat()
        ids = gateway.post("/tokenize", {"messages": USER}).json()["tokens"]
        assert ids == list(gateway.fake.requests[0].prompt_token_ids)
        shorter = gateway.post(
            "/tokenize", {"messages": USER, "add_generation_prompt": False}
        ).json()
        assert ids[: shorter["count"]] == shorter["tokens"]

    def test_tools_are_part_of_it(self, gateway: Harness) -> None:
        plain = gateway.post("/tokenize", {"messages": USER}).json()["count"]
        tools = gateway.post("/tokenize", {"messages": USER, "tools": [WEATHER]}).json()["count"]
        assert tools > plain

    @pytest.mark.parametrize(
        "path, body, param",
        [
            ("/tokenize", {}, "prompt"),
            ("/tokenize", {"prompt": "a", "messages": USER}, "prompt"),
            ("/tokenize", {"prompt": 5}, "prompt"),
            ("/tokenize", {"messages": []}, "messages"),
            ("/tokenize", {"messages": [5]}, "messages[0]"),
            ("/tokenize", {"messages": USER, "chat_template": "x"}, "chat_template"),
            ("/tokenize", {"prompt": "a", "model": "other"}, "model"),
            ("/tokenize", {"prompt": "a" * 100_000}, "prompt"),
            ("/detokenize", {}, "tokens"),
            ("/detokenize", {"tokens": "a"}, "tokens"),
            ("/detokenize", {"tokens": [1.5]}, "tokens[0]"),
            ("/detokenize", {"tokens": [True]}, "tokens[0]"),
            ("/detokenize", {"tokens": [1, -1]}, "tokens[1]"),
            ("/detokenize", {"tokens": [HOLE]}, "tokens[0]"),
            ("/detokenize", {"tokens": [2**31]}, "tokens[0]"),
            ("/detokenize", {"tokens": [97] * 300}, "tokens"),
        ],
        ids=lambda value: str(value)[:50],
    )
    def test_bad_requests_are_named(
        self, gateway: Harness, path: str, body: dict[str, Any], param: str
    ) -> None:
        reply = gateway.post(path, body)
        assert reply.status_code in (400, 404)
        assert reply.json()["error"]["param"] == param

    def test_no_ids_are_an_empty_text(self, gateway: Harness) -> None:
        assert gateway.post("/detokenize", {"tokens": []}).json() == {"prompt": ""}
        assert gateway.post("/tokenize", {"prompt": ""}).json()["tokens"] == []


class TestProbes:
    def test_all_is_well(self, gateway: Harness) -> None:
        assert gateway.get("/livez").text == "ok\n"
        assert gateway.get("/readyz").text == "ready\n"
        assert gateway.get("/health").json() == {"status": "ready", "reason": None}

    def test_not_ready_has_the_reason_and_requests_are_503(self, make_gateway: Any) -> None:
        reason = "layer 3: 2 pieces have no holder"
        status = attention_pb2.GetStatusResponse(ready=False, not_ready_reason=reason)
        gateway = make_gateway(status=status, wait_ready=False)
        gateway.wait_for(lambda: reason in gateway.get("/readyz").text)
        assert gateway.get("/livez").status_code == 200
        assert gateway.get("/readyz").status_code == 503
        assert gateway.get("/health").json()["status"] == "not ready"
        reply = gateway.chat()
        assert reply.status_code == 503
        assert reply.headers["retry-after"]
        assert reason in reply.json()["error"]["message"]
        # Bad requests still get their 400, and tokenising needs no model.
        assert gateway.chat(temperature=9).status_code == 400
        assert gateway.post("/tokenize", {"prompt": "a"}).status_code == 200

    def test_readiness_follows_the_service(self, make_gateway: Any) -> None:
        gateway = make_gateway()
        gateway.fake.status = attention_pb2.GetStatusResponse(ready=False, not_ready_reason="gone")
        gateway.wait_for(lambda: gateway.get("/readyz").status_code == 503)
        gateway.fake.status = ready_status()
        gateway.wait_for(lambda: gateway.get("/readyz").status_code == 200)

    def test_nobody_there(self, make_gateway: Any) -> None:
        gateway = make_gateway(attention=("127.0.0.1:1",), wait_ready=False)
        assert gateway.get("/readyz").status_code == 503
        reply = gateway.chat()
        assert reply.status_code == 503
        assert "127.0.0.1" not in reply.text

    def test_a_service_with_another_vocabulary_is_not_used(self, make_gateway: Any) -> None:
        status = ready_status()
        status.vocab_size = 5
        gateway = make_gateway(status=status, wait_ready=False)
        gateway.wait_for(lambda: "vocabulary of 5" in gateway.get("/readyz").text)


def test_version_tells_of_the_services(gateway: Harness) -> None:
    version = gateway.get("/version").json()
    assert version["protocol"] == "1.1"
    assert version["batch_invariant"] is True
    assert version["attention"][0]["attention_id"] == "fake"


def test_the_printed_url_leads_to_the_docs(gateway: Harness) -> None:
    reply = gateway.get("/")
    assert reply.status_code == 307
    assert reply.headers["location"] == "/docs"


def test_docs_need_nothing_from_the_internet(gateway: Harness) -> None:
    page = gateway.get("/docs")
    assert page.status_code == 200
    assert "http://" not in page.text
    assert "https://" not in page.text
    assert "//cdn" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    api = gateway.get("/openapi.json").json()
    assert "/v1/chat/completions" in api["paths"]
    schema = api["components"]["schemas"]["ChatRequest"]
    assert {"messages", "temperature", "reasoning_split"} <= set(schema["properties"])


class TestMetrics:
    NAMES = (
        "requests_total",
        "ttft_seconds_count",
        "inter_token_seconds_count",
        "e2e_seconds_count",
        "prompt_tokens_total",
        "cached_prompt_tokens_total",
        "generated_tokens_total",
        "requests_waiting",
        "requests_running",
        "tool_calls_total",
        "tool_parse_errors_total",
        "sse_keepalives_total",
        "client_disconnects_total",
        "attention_replicas_ready",
    )

    def test_a_request_is_counted(self, gateway: Harness, tokenizer: Tokenizer) -> None:
        ids = thinking_answer(tokenizer, "hm", "hi")
        gateway.script(say(ids, eos=EOS))
        before = {name: gateway.metric(name) for name in self.NAMES}
        gateway.chat()
        prompt = len(gateway.fake.requests[0].prompt_token_ids)
        grown = {name: gateway.metric(name) - before[name] for name in self.NAMES}
        assert grown["requests_total"] == 1
        assert grown["ttft_seconds_count"] == 1
        assert grown["e2e_seconds_count"] == 1
        assert grown["generated_tokens_total"] == len(ids) + 1
        assert grown["inter_token_seconds_count"] == len(ids)
        assert grown["prompt_tokens_total"] == prompt
        assert gateway.metric("requests_running") == gateway.metric("requests_waiting") == 0
        assert gateway.metric("attention_replicas_ready") == 1

    def test_outcomes_are_told_apart(self, gateway: Harness) -> None:
        gateway.chat(temperature=9)
        families = text_string_to_metric_families(gateway.get("/metrics").text)
        outcomes = {
            sample.labels["outcome"]
            for family in families
            for sample in family.samples
            if sample.name == "expertmesh_requests_total"
        }
        assert "client_error" in outcomes

    def test_the_page_parses_and_says_nothing_about_prompts(self, gateway: Harness) -> None:
        text = gateway.get("/metrics").text
        names = {sample.name for f in text_string_to_metric_families(text) for sample in f.samples}
        assert all(name.startswith("expertmesh_") for name in names)
        assert "hello" not in text
