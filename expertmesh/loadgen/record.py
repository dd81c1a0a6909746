"""What is measured of one request? Times in seconds of one monotonic clock."""

from dataclasses import dataclass, field
from itertools import pairwise


@dataclass(slots=True)
class Record:
    """One request, as seen by the client."""

    started_s: float = 0.0
    """When it was sent."""
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    """(time, tokens so far) of each arrival with new tokens."""
    prompt_tokens: int = 0
    cached_tokens: int | None = None
    """Prompt tokens from the server's prefix cache; None if the server does not say."""
    output_tokens: int = 0
    timings: dict[str, float] = field(default_factory=dict)
    """The server's own times in milliseconds (`expertmesh_timings`)."""
    error: str | None = None
    cancelled: bool = False
    """Cut off by the end of the benchmark: neither a success nor a failure."""

    @property
    def ok(self) -> bool:
        return self.error is None and not self.cancelled and bool(self.arrivals)

    @property
    def ended_s(self) -> float:
        return self.arrivals[-1][0] if self.arrivals else self.started_s

    @property
    def ttft_s(self) -> float:
        """Time to first token."""
        return self.arrivals[0][0] - self.started_s

    @property
    def e2el_s(self) -> float:
        """End-to-end latency: to the last token."""
        return self.ended_s - self.started_s

    @property
    def tpot_s(self) -> float | None:
        """Time per output token after the first arrival; None for a single token."""
        later = self.output_tokens - 1
        return (self.e2el_s - self.ttft_s) / later if later > 0 else None

    @property
    def itl_s(self) -> list[float]:
        """Gaps between arrivals."""
        times = [when for when, _ in self.arrivals]
        return [later - sooner for sooner, later in pairwise(times)]

    @property
    def increments(self) -> list[tuple[float, int]]:
        """(time, new tokens) of each arrival."""
        pairs = pairwise([(self.started_s, 0), *self.arrivals])
        return [(when_s, so_far - before) for (_, before), (when_s, so_far) in pairs]

    def arrive(self, when_s: float, tokens_so_far: int) -> None:
        """Note an arrival, if it brought new tokens."""
        if tokens_so_far > (self.arrivals[-1][1] if self.arrivals else 0):
            self.arrivals.append((when_s, tokens_so_far))
            self.output_tokens = tokens_so_far
