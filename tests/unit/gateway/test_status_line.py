"""The log line about the load, and metrics that belong to one gateway only."""

from prometheus_client import CollectorRegistry

from gateway.http.request_record import RequestRecord
from gateway.metrics import GatewayMetrics
from gateway.status_line import StatusLine


def test_two_registries_do_not_meet() -> None:
    first, second = GatewayMetrics(CollectorRegistry()), GatewayMetrics(CollectorRegistry())
    first.prompt_tokens.inc(5)
    assert second.registry.get_sample_value("expertmesh_prompt_tokens_total") == 0


def test_the_status_line_appears_when_something_ran() -> None:
    metrics = GatewayMetrics(CollectorRegistry())
    stats = StatusLine(metrics, interval_s=2.0)
    assert stats.take() is None
    record = RequestRecord(metrics, "chat")
    record.queued(20)
    record.tokens(0, 10)
    line = stats.take()
    assert line == "running 1, waiting 0, ended 0, prompt 10.0 tokens/s, generation 5.0 tokens/s"
    record.end("ok")
    assert stats.take() is not None
    assert stats.take() is None
