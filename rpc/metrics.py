"""Which buckets do all services' Prometheus metrics share, and how is a metric made?

Bucket lists follow what operators know from vLLM and gRPC's A66 proposal, with
the long tail that CPU pools need.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

TTFT_BUCKETS_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10),
    *(20, 40, 80, 160, 640, 2560),
)
INTER_TOKEN_BUCKETS_S = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1, 2.5, 5, 7.5, 10, 20, 40, 80),
)
REQUEST_BUCKETS_S = (
    *(0.01, 0.05, 0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240),
    *(480, 960, 1920, 7680),
)
RPC_BUCKETS_S = (
    *(0.00001, 0.00005, 0.0001, 0.0002, 0.0003, 0.0004, 0.0006, 0.0008, 0.001, 0.002, 0.003),
    *(0.004, 0.005, 0.006, 0.008, 0.01, 0.013, 0.016, 0.02, 0.025, 0.03, 0.04, 0.05, 0.065),
    *(0.08, 0.1, 0.13, 0.16, 0.2, 0.25, 0.3, 0.4, 0.5, 0.65, 0.8, 1, 2, 5, 10, 20, 50, 100),
)


@dataclass(frozen=True)
class Collectors:
    """Makes the metrics of a registry. Names are written in full, so that a search finds them."""

    registry: CollectorRegistry

    def counter(self, name: str, help: str, *labels: str) -> Counter:
        return Counter(name, help, labels, registry=self.registry)

    def gauge(self, name: str, help: str, *labels: str) -> Gauge:
        return Gauge(name, help, labels, registry=self.registry)

    def histogram(self, name: str, help: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(name, help, labels, buckets=buckets, registry=self.registry)


def export_certificate_expiry(
    registry: CollectorRegistry, expires_at_s: Callable[[], float]
) -> None:
    """For a service with TLS; computed at each scrape, so that a renewed certificate shows."""
    Collectors(registry).gauge(
        "expertmesh_certificate_expiry_seconds",
        "Until the service's certificate, or the CA it trusts, expires.",
    ).set_function(lambda: expires_at_s() - time.time())


def export_device_memory(
    registry: CollectorRegistry,
    device: str,
    *,
    total_bytes: int,
    used_bytes: Callable[[], int],
) -> None:
    """For a service on a GPU; read at each scrape. `used_bytes` may raise ValueError: NaN then."""

    def used() -> float:
        try:
            return used_bytes()
        except ValueError:
            return math.nan

    make = Collectors(registry)
    make.gauge(
        "expertmesh_device_memory_used_bytes", "In use on the service's GPU", "device"
    ).labels(device).set_function(used)
    make.gauge(
        "expertmesh_device_memory_total_bytes", "Memory of the service's GPU", "device"
    ).labels(device).set(total_bytes)
