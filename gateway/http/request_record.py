"""How are one request's times, tokens and end counted?"""

import time
from collections.abc import Callable
from typing import Literal

from gateway.errors import Kind
from gateway.metrics import GatewayMetrics

Outcome = Literal["ok", "client_error", "overloaded", "unavailable", "error", "disconnected"]

_OUTCOMES: dict[Kind, Outcome] = {
    Kind.OVERLOADED: "overloaded",
    Kind.NOT_READY: "unavailable",
    Kind.INTERNAL: "error",
    Kind.BROKEN_UPSTREAM: "error",
    Kind.TIMED_OUT: "error",
}


def outcome_of_error(kind: Kind) -> Outcome:
    """How a request that ended with this kind of error is counted."""
    return _OUTCOMES.get(kind, "client_error")


class RequestRecord:
    """One request, from receipt to `end`, which counts once."""

    def __init__(self, metrics: GatewayMetrics, api: str):
        self._metrics = metrics
        self._api = api
        self._gaps = metrics.inter_token.labels(api)  # asked for once: tokens are many
        self.received_s = time.monotonic()
        self._last_token_s: dict[int, float] = {}
        self._ended = False
        self.on_end: Callable[[], None] = lambda: None
        self._tokens_expected = False

    def queued(self, num_prompt_tokens: int) -> None:
        """The prompt is known and generation was asked for."""
        self._tokens_expected = True
        self._metrics.waiting.inc()
        self._metrics.prompt_tokens.inc(num_prompt_tokens)

    def tokens(self, choice: int, count: int) -> None:
        """`count` tokens of one choice arrived together."""
        now_s = time.monotonic()
        if not self._last_token_s:
            self._metrics.ttft.labels(self._api).observe(now_s - self.received_s)
            self._metrics.waiting.dec()
            self._metrics.running.inc()
        last_s = self._last_token_s.get(choice)
        if last_s is not None:
            for _ in range(count):
                self._gaps.observe((now_s - last_s) / count)
        self._last_token_s[choice] = now_s
        self._metrics.generated_tokens.inc(count)

    def keepalive(self) -> None:
        self._metrics.keepalives.labels(self._api).inc()

    def end(self, outcome: Outcome, *, cached_tokens: int = 0) -> None:
        if self._ended:
            return
        self._ended = True
        self.on_end()
        started = bool(self._last_token_s)
        if self._tokens_expected:
            (self._metrics.running if started else self._metrics.waiting).dec()
        if outcome == "disconnected":
            phase = "streaming" if started else "before_first_token"
            self._metrics.disconnects.labels(self._api, phase).inc()
        self._metrics.cached_tokens.inc(cached_tokens)
        self._metrics.requests.labels(self._api, outcome).inc()
        self._metrics.e2e.labels(self._api).observe(time.monotonic() - self.received_s)
