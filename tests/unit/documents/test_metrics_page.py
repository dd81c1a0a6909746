"""docs/metrics.md and what the services export are the same list."""

import re
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from tests.support.places import ROOT

PAGE = ROOT / "docs" / "metrics.md"
ROW = re.compile(
    r"^\| `(expertmesh_\w+)` \| (\w+) \| ([\w, ]*)\| ([^|]+)\|([^|]*)\|$", re.MULTILINE
)

Series = tuple[str, str, tuple[str, ...]]
"""(exposed name, type, labels in order)."""


def section(title: str) -> set[Series]:
    text = PAGE.read_text().partition(f"## {title}\n")[2].partition("\n## ")[0]
    return {
        (name, kind, tuple(label.strip() for label in labels.split(",") if label.strip()))
        for name, kind, labels, _, _ in ROW.findall(text)
    }


def exported(registry: CollectorRegistry) -> Iterator[Series]:
    for collector in list(registry._collector_to_names):
        if isinstance(collector, MetricWrapperBase):
            name = collector._name + ("_total" if collector._type == "counter" else "")
            yield name, collector._type, tuple(collector._labelnames)
        else:
            for family in collector.collect():
                name = family.name + ("_total" if family.type == "counter" else "")
                labels = {tuple(sample.labels) for sample in family.samples}
                assert len(labels) == 1
                yield name, family.type, labels.pop()


def gateway() -> set[Series]:
    from gateway.metrics import GatewayMetrics

    registry = CollectorRegistry()
    GatewayMetrics(registry)
    return set(exported(registry))


def attention() -> set[Series]:
    from attention_svc.activations import ActivationCounts
    from attention_svc.metrics import MAX_PIECE_LABELS, AttentionMetrics

    few = AttentionMetrics(ActivationCounts(1, MAX_PIECE_LABELS))
    many = AttentionMetrics(ActivationCounts(1, MAX_PIECE_LABELS + 1))
    return set(exported(few.registry)) | set(exported(many.registry))


def pool() -> set[Series]:
    from expert_svc.metrics import ExpertMetrics

    return set(exported(ExpertMetrics().registry))


def router() -> set[Series]:
    from router_svc.metrics import RouterMetrics

    registry = CollectorRegistry()
    RouterMetrics(registry)
    return set(exported(registry))


def every_service() -> set[Series]:
    from rpc.metrics import export_certificate_expiry, export_device_memory

    registry = CollectorRegistry()
    export_certificate_expiry(registry, lambda: 0.0)
    export_device_memory(registry, "cuda:0", total_bytes=2, used_bytes=lambda: 1)
    return set(exported(registry))


@pytest.mark.parametrize(
    ("title", "service"),
    [
        ("Gateway", gateway),
        ("Attention", attention),
        ("Expert pool", pool),
        ("Router", router),
        ("Every service", every_service),
    ],
)
def test_the_page_lists_exactly_what_the_service_exports(title: str, service) -> None:
    listed, real = section(title), service()
    assert real, "the service exports nothing?"
    assert listed == real, f"missing on the page: {real - listed}; not exported: {listed - real}"


def test_every_row_has_a_meaning() -> None:
    rows = ROW.findall(PAGE.read_text())
    names = [line for line in PAGE.read_text().splitlines() if line.startswith("| `expertmesh_")]
    assert len(rows) == len(names), "a row is not of the table's form"
    assert all(meaning.strip() for *_, meaning, _ in rows)
