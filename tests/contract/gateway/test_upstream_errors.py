"""What the attention service refuses or breaks reaches the client as an error, not a normal end."""

from typing import Any

import grpc
import openai
import pytest

from moe_model.text.tokenizer import Tokenizer
from protos import attention_pb2
from tests.support.gateway.answers import events_of, thinking_answer
from tests.support.gateway.fake_attention import ended, say, stopped, tokens
from tests.support.gateway.harness import Harness
from tests.support.gateway.model import EOS, NAME

MESSAGES: Any = [{"role": "user", "content": "hello"}]


@pytest.mark.parametrize(
    "status, http_status, code",
    [
        (grpc.StatusCode.INVALID_ARGUMENT, 400, "invalid_value"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 429, "overloaded"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, 504, "deadline_exceeded"),
        (grpc.StatusCode.INTERNAL, 502, "upstream_error"),
        (grpc.StatusCode.FAILED_PRECONDITION, 502, "upstream_error"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_is_an_http_error_even_for_streams(
    gateway: Harness, status: grpc.StatusCode, http_status: int, code: str, stream: bool
) -> None:
    gateway.script(lambda r: [status])
    reply = gateway.chat(stream=stream)
    assert reply.status_code == http_status
    assert reply.json()["error"]["code"] == code
    assert ("retry-after" in reply.headers) == (http_status == 429)


def test_a_refusal_that_takes_a_while_keeps_its_status(gateway: Harness) -> None:
    """Some clients ask again after a 429, but not after an event that says the same."""
    gateway.script(lambda r: [0.4, grpc.StatusCode.RESOURCE_EXHAUSTED])
    reply = gateway.chat(stream=True)
    assert reply.status_code == 429
    assert reply.headers["retry-after"]


def test_unavailable_is_503_with_retry_after(gateway: Harness) -> None:
    gateway.script(lambda r: [grpc.StatusCode.UNAVAILABLE])
    reply = gateway.chat()
    assert reply.status_code == 503
    assert reply.headers["retry-after"]
    assert reply.json()["error"]["type"] == "service_unavailable_error"


@pytest.mark.parametrize(
    "last, code",
    [
        (ended(attention_pb2.FINISH_REASON_ERROR, "all logits are NaN"), "generation_failed"),
        (ended(attention_pb2.FINISH_REASON_ERROR, "a pool died", retryable=True), "not_ready"),
        (ended(attention_pb2.FINISH_REASON_ABORTED), "not_ready"),
        (ended(attention_pb2.FINISH_REASON_UNSPECIFIED), "upstream_protocol_error"),
        (grpc.StatusCode.UNAVAILABLE, "not_ready"),
        (grpc.StatusCode.INTERNAL, "upstream_error"),
        (tokens(9, [65]), "upstream_protocol_error"),
        (tokens(0, [65]), "upstream_protocol_error"),
        (tokens(5, [10_000]), "upstream_protocol_error"),
        (stopped(99), "upstream_protocol_error"),
        (attention_pb2.GenerateResponse(), "upstream_protocol_error"),
        (0, "upstream_protocol_error"),  # the stream just ends
    ],
    ids=lambda value: str(value).replace("\n", " ")[:40],
)
class TestMidStream:
    def script(self, tokenizer: Tokenizer, last: Any) -> Any:
        ids = thinking_answer(tokenizer, "", "so")
        assert len(ids) == 6
        return lambda r: [0.15, tokens(0, ids[:5]), last]

    def test_a_stream_ends_with_one_error_event(
        self, gateway: Harness, tokenizer: Tokenizer, last: Any, code: str
    ) -> None:
        gateway.script(self.script(tokenizer, last))
        reply = gateway.chat(stream=True)
        assert reply.status_code == 200
        events = events_of(reply.text)
        assert [("error" in event) for event in events] == [False] * (len(events) - 1) + [True]
        error = events[-1]["error"]
        assert error["code"] == code
        assert error["request_id"] == reply.headers["x-request-id"]
        assert "[DONE]" not in reply.text
        assert not [e for e in events[:-1] if e["choices"][0]["finish_reason"]]

    def test_a_whole_answer_is_an_http_error(
        self, gateway: Harness, tokenizer: Tokenizer, last: Any, code: str
    ) -> None:
        gateway.script(self.script(tokenizer, last))
        reply = gateway.chat()
        assert reply.status_code >= 500
        assert reply.json()["error"]["code"] == code


def test_openais_client_raises_on_an_error_event(gateway: Harness, tokenizer: Tokenizer) -> None:
    gateway.script(
        lambda r: [0.15, tokens(0, [65]), ended(attention_pb2.FINISH_REASON_ERROR, "the reason")]
    )
    with pytest.raises(openai.APIError, match="the reason"):
        list(gateway.client().chat.completions.create(model=NAME, messages=MESSAGES, stream=True))


def test_one_failing_choice_fails_the_request_and_cancels_the_others(
    gateway: Harness, tokenizer: Tokenizer
) -> None:
    def script(request: Any) -> Any:
        if request.choice_idx == 1:
            return [0.1, ended(attention_pb2.FINISH_REASON_ERROR, "no")]
        return [tokens(0, [65]), 30.0]

    gateway.script(script)
    assert gateway.chat(n=2).status_code == 500
    gateway.wait_for(lambda: gateway.fake.cancelled == 1)


def test_errors_show_no_internals(gateway: Harness) -> None:
    def broken(request: Any) -> Any:
        raise RuntimeError("secret /path and stack")

    gateway.script(broken)
    reply = gateway.chat()
    assert reply.status_code == 502
    assert "secret" not in reply.text
    assert "Traceback" not in reply.text


def test_a_bug_of_the_gateway_is_a_500_without_its_text(
    gateway: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr("gateway.openai.field_rules.FieldRules.check", broken)
    reply = gateway.chat()
    assert reply.status_code == 500
    assert reply.json()["error"]["code"] == "internal_error"
    assert "secret" not in reply.text
    assert reply.headers["x-request-id"]


def test_a_bug_in_the_middle_of_a_stream_is_an_error_event_and_logged(
    gateway: Harness,
    tokenizer: Tokenizer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr("gateway.text.choice_text.ChatText.finish", broken)
    gateway.script(lambda r: [tokens(0, [65]), 0.15, stopped(1)])
    text = gateway.chat(stream=True).text
    assert events_of(text)[-1]["error"]["code"] == "internal_error"
    assert "secret" not in text
    assert "[DONE]" not in text
    assert "RuntimeError: secret" in caplog.text


def test_refusals_that_clients_cause_do_not_fill_the_log(
    gateway: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    for status in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED):
        gateway.script(lambda r, status=status: [status])
        gateway.chat()
    gateway.chat(temperature=9)
    gateway.post("/v1/chat/completions", b"{")
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


def test_a_service_that_goes_away_is_one_line_in_the_log(
    make_gateway: Any, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = make_gateway(poll_interval_s=60)
    gateway.script(lambda r: [tokens(0, [65]), 0.3, grpc.StatusCode.UNAVAILABLE])
    assert gateway.chat(n=8).status_code == 503
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1


def test_a_retry_elsewhere_is_not_seen_by_the_client(
    make_gateway: Any, tokenizer: Tokenizer
) -> None:
    gateway = make_gateway(fakes=2)
    ids = thinking_answer(tokenizer, "hm", "here")
    gateway.script(say(ids, eos=EOS))
    gateway.fakes[0].script = lambda r: [grpc.StatusCode.UNAVAILABLE]
    for _ in range(4):
        assert gateway.chat().json()["choices"][0]["message"]["content"] == "here"
    assert len(gateway.fakes[1].requests) == 4
