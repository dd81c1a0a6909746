"""What does the gateway log about its load every few seconds?"""

import asyncio
import logging

from prometheus_client import Counter, Gauge

from gateway.metrics import GatewayMetrics

log = logging.getLogger(__name__)

INTERVAL_S = 5.0


class StatusLine:
    """Requests and tokens since the last line, read from the metrics."""

    def __init__(self, metrics: GatewayMetrics, interval_s: float = INTERVAL_S):
        self._metrics = metrics
        self._interval_s = interval_s
        self._totals = self._read_totals()

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            line = self.take()
            if line is not None:
                log.info("%s", line)

    def take(self) -> str | None:
        """The line, or None when nothing ran; starts the next interval."""
        before, self._totals = self._totals, self._read_totals()
        ended, prompt_tokens, generated_tokens = (
            after - earlier for after, earlier in zip(self._totals, before, strict=True)
        )
        running, waiting = _value(self._metrics.running), _value(self._metrics.waiting)
        if not (running or waiting or ended or prompt_tokens):
            return None
        return (
            f"running {running:.0f}, waiting {waiting:.0f}, ended {ended:.0f}, "
            f"prompt {prompt_tokens / self._interval_s:.1f} tokens/s, "
            f"generation {generated_tokens / self._interval_s:.1f} tokens/s"
        )

    def _read_totals(self) -> list[float]:
        of = self._metrics
        return [_value(c) for c in (of.requests, of.prompt_tokens, of.generated_tokens)]


def _value(metric: Counter | Gauge) -> float:
    """Summed over all labels."""
    samples = (sample for family in metric.collect() for sample in family.samples)
    return sum(sample.value for sample in samples if not sample.name.endswith("_created"))
