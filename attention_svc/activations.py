"""Which experts did the steps choose, and how often?

Read by the choice of pools, the report to the router, recordings and Prometheus.
"""

import threading
from collections.abc import Callable, Sequence

import numpy as np

from rpc.mesh.work import ROWS_PER_EXPERT_READ

COUNTED_AT_ONCE = 32
"""Decode steps that may wait to be counted together."""
StepIds = Sequence[np.ndarray] | np.ndarray
"""topk_ids_TK of all layers of a step."""


class ActivationCounts:
    """Tokens routed to each (layer, expert) since start, and steps with any: int64 [layers, E]."""

    def __init__(self, num_layers: int, num_experts: int):
        self._counts = np.zeros((num_layers, num_experts), dtype=np.int64)
        self._steps = np.zeros_like(self._counts)
        self._waiting: list[StepIds] = []
        self._lock = threading.Lock()  # metrics are read from other threads
        self._first_ids = np.arange(num_layers)[:, None] * num_experts
        self._reported = np.zeros((2, num_layers, num_experts), dtype=np.int64)
        self.listeners: list[Callable[[StepIds, bool], None]] = []
        """Each is called after every step with its ids and whether it is decode."""

    @property
    def counts(self) -> np.ndarray:
        """Tokens."""
        return self._count()[0]

    @property
    def steps(self) -> np.ndarray:
        """Steps with any token."""
        return self._count()[1]

    def add_step(self, topk_ids: StepIds, *, is_decode: bool) -> None:
        """All layers of a step. Decode steps are counted many at once, or when counts are read."""
        with self._lock:
            self._waiting.append(topk_ids)
        if not is_decode or len(self._waiting) >= COUNTED_AT_ONCE:
            self._count()
        for listener in self.listeners:
            listener(topk_ids, is_decode)

    def _count(self) -> tuple[np.ndarray, np.ndarray]:
        """(tokens, steps), with those that waited to be counted."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
            shape = self._counts.shape
            for topk_ids in waiting:
                pieces = np.asarray(topk_ids).reshape(shape[0], -1) + self._first_ids
                tokens = np.bincount(pieces.ravel(), minlength=self._counts.size).reshape(shape)
                self._counts += tokens
                self._steps += tokens > 0
        return self._counts, self._steps

    def take_delta(self) -> tuple[np.ndarray, np.ndarray]:
        """(tokens, steps) since the last call: for the report to the router."""
        now = np.stack(self._count())
        delta, self._reported = now - self._reported, now
        return delta[0], delta[1]

    def work(self) -> np.ndarray:
        """float [layers, E]: steps that read an expert's weights, and its rows' arithmetic in the
        same unit; never 0, so that experts that were not chosen are spread by their number."""
        return 1.0 + self.steps + self.counts / ROWS_PER_EXPERT_READ
