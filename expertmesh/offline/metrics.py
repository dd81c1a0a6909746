"""What does `LLM.get_metrics()` return? Named values, in the classes that vLLM's users know."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from prometheus_client import Metric as Family


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One series of docs/metrics.md."""

    name: str
    labels: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Counter(Metric):
    """It only grows; its name is without `_total`."""

    value: int


@dataclass(frozen=True, kw_only=True)
class Gauge(Metric):
    """What is measured now."""

    value: float


@dataclass(frozen=True, kw_only=True)
class Histogram(Metric):
    """Observations, and how many were at most as large as each bound."""

    count: int
    sum: float
    buckets: dict[str, int]


def read_metrics(families: Iterable[Family]) -> list[Metric]:
    """The counters, gauges and histograms among Prometheus' families."""
    found: list[Metric] = []
    for family in families:
        if family.type == "histogram":
            found += _histograms(family)
        elif family.type in ("counter", "gauge"):
            for sample in family.samples:
                if family.type == "gauge":
                    found.append(
                        Gauge(name=family.name, labels=dict(sample.labels), value=sample.value)
                    )
                elif sample.name.endswith("_total"):
                    value = int(sample.value)
                    found.append(Counter(name=family.name, labels=dict(sample.labels), value=value))
    return found


def _histograms(family: Family) -> list[Metric]:
    """One for each set of labels, in the order in which they come."""
    sums: dict[tuple[tuple[str, str], ...], float] = {}
    buckets: dict[tuple[tuple[str, str], ...], dict[str, int]] = defaultdict(dict)
    for sample in family.samples:
        labels = tuple((key, value) for key, value in sample.labels.items() if key != "le")
        if sample.name.endswith("_sum"):
            sums[labels] = sample.value
        elif sample.name.endswith("_bucket"):
            buckets[labels][sample.labels["le"]] = int(sample.value)
    return [
        Histogram(
            name=family.name,
            labels=dict(labels),
            count=buckets[labels]["+Inf"],
            sum=total,
            buckets=buckets[labels],
        )
        for labels, total in sums.items()
    ]
