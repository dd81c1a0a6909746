"""Requests are counted once, whatever order things happen in."""

import pytest
from prometheus_client import CollectorRegistry

from gateway.errors import Kind
from gateway.http.request_record import RequestRecord, outcome_of_error
from gateway.metrics import GatewayMetrics


@pytest.fixture
def metrics() -> GatewayMetrics:
    return GatewayMetrics(CollectorRegistry())


def value(metrics: GatewayMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value("expertmesh_" + name, labels or None)


def test_a_request_moves_from_waiting_to_running_to_ended(metrics: GatewayMetrics) -> None:
    record = RequestRecord(metrics, "chat")
    record.queued(10)
    assert (value(metrics, "requests_waiting"), value(metrics, "requests_running")) == (1, 0)
    record.tokens(0, 1)
    record.tokens(0, 3)
    record.tokens(1, 1)
    assert (value(metrics, "requests_waiting"), value(metrics, "requests_running")) == (0, 1)
    record.end("ok")
    record.end("error")
    assert (value(metrics, "requests_waiting"), value(metrics, "requests_running")) == (0, 0)
    assert value(metrics, "requests_total", api="chat", outcome="ok") == 1
    assert value(metrics, "requests_total", api="chat", outcome="error") is None
    assert value(metrics, "ttft_seconds_count", api="chat") == 1
    # Gaps between tokens of one choice: three after the first; the other choice has one token.
    assert value(metrics, "inter_token_seconds_count", api="chat") == 3
    assert value(metrics, "generated_tokens_total") == 5


@pytest.mark.parametrize("tokens, phase", [(0, "before_first_token"), (1, "streaming")])
def test_a_disconnect_has_its_phase(metrics: GatewayMetrics, tokens: int, phase: str) -> None:
    record = RequestRecord(metrics, "chat")
    record.queued(1)
    if tokens:
        record.tokens(0, tokens)
    record.end("disconnected")
    assert value(metrics, "client_disconnects_total", api="chat", phase=phase) == 1


def test_a_refused_request_was_never_waiting(metrics: GatewayMetrics) -> None:
    RequestRecord(metrics, "chat").end("client_error")
    assert value(metrics, "requests_waiting") == 0


def test_the_place_is_given_back_once(metrics: GatewayMetrics) -> None:
    given_back = []
    record = RequestRecord(metrics, "chat")
    record.on_end = lambda: given_back.append(1)
    record.end("ok")
    record.end("ok")
    assert given_back == [1]


@pytest.mark.parametrize(
    "kind, outcome",
    [
        (Kind.INVALID_REQUEST, "client_error"),
        (Kind.MODEL_NOT_FOUND, "client_error"),
        (Kind.OVERLOADED, "overloaded"),
        (Kind.INTERNAL, "error"),
        (Kind.BROKEN_UPSTREAM, "error"),
        (Kind.NOT_READY, "unavailable"),
        (Kind.TIMED_OUT, "error"),
    ],
)
def test_outcomes(kind: Kind, outcome: str) -> None:
    assert outcome_of_error(kind) == outcome
