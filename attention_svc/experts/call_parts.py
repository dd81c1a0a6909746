"""What does an ExpertCall consist of? What all calls share, its parts, and its time limit."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from attention_svc.experts.call_outcome import CallAnswered
from attention_svc.experts.finite_rows import Rows
from attention_svc.experts.health import RetryBudget
from attention_svc.experts.link import PoolLink
from attention_svc.experts.outages import Outages
from attention_svc.experts.pools import PoolSet
from attention_svc.experts.transport import HopTerms
from attention_svc.metrics import AttentionMetrics
from rpc.hop.codec import HopCodec


@dataclass(frozen=True, slots=True)
class CallContext:
    """Shared by all calls of a transport."""

    pools: PoolSet
    codec: HopCodec
    metrics: AttentionMetrics
    budget: RetryBudget
    call_ids: Iterator[int]
    outages: Outages = field(default_factory=Outages)


class CallPart:
    """Some experts of a call, at one pool at a time."""

    # Defaults of the class, not assignments in __init__: see docs/cold-caches.md.
    link: PoolLink | None = None
    call_id = 0
    rows: bytes | None = None
    sent: Rows | None = None  # what the call was built from
    num_rows = 0
    numerics_id = ""
    units = 1.0
    answer: CallAnswered | None = None
    timer: asyncio.TimerHandle | None = None
    late_since_s = 0.0  # 0: not late
    trouble = ""  # what went wrong last; empty: nothing so far
    broke: tuple[str, int] | None = None  # pool and incarnation whose stream broke during the call
    tried: frozenset[tuple[PoolLink, int]] = frozenset()

    def __init__(self, owner_E: np.ndarray | None, owner: int, done: "asyncio.Future[None]"):
        """The experts whose entry in `owner_E` is `owner`; None: all."""
        self.owner_E = owner_E
        self.owner = owner
        self.done = done


class CallTime:
    """The time limit of a call from its first failure on: one timer that nothing resets."""

    def __init__(
        self,
        context: CallContext,
        terms: HopTerms,
        layer_idx: int,
        experts: list[int],
        on_expiry: Callable[[], None],
    ):
        """Counted from now, or from when these pieces went out of service in an earlier step."""
        loop = asyncio.get_running_loop()
        self.began_s = now_s = loop.time()
        self.expired = False
        self._context, self._terms, self._on_expiry = context, terms, on_expiry
        self._parked = self._closed = False
        since_s = context.outages.since_s(layer_idx, experts, now_s)
        left_s = terms.timeout_s if terms.patience is None else terms.patience.begin()
        end_s = min(since_s + terms.timeout_s, now_s + left_s)
        self.limit_s = max(0.0, end_s - now_s)
        self._timer = loop.call_at(end_s, self._expire)
        context.outages.waiting += 1

    def park(self) -> None:
        """No pool can be asked at present."""
        if not self._parked and not self._terms.is_probe:
            self._parked = True
            self._context.metrics.parked.inc()

    def close(self) -> None:
        """The call has ended; the step's patience has counted its wait."""
        if self._closed:
            return
        self._closed = True
        self._timer.cancel()
        self._context.outages.waiting -= 1
        if self._parked:
            self._context.metrics.parked.dec()
        if self._terms.patience is not None:
            self._terms.patience.end()

    def _expire(self) -> None:
        self.expired = True
        self._on_expiry()
