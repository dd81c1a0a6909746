"""Does this pool still compute what it computed when its weights were loaded?

Loading verifies every expert against the manifest; memory that goes bad afterwards shows nowhere
but in tokens. So a fixed row goes through one expert after the other, alone and behind the calls of
prefill, and each time it has to come out bit for bit as it did the first time.
"""

import asyncio
import hashlib
import math
import time
from typing import Any

import torch
from torch import Tensor

from expert_svc.calls import Call, Rows
from expert_svc.compute import NotHolding
from expert_svc.executor import Executor
from expert_svc.metrics import ExpertMetrics
from expert_svc.weight_store import WeightStore

FIRST_ROUND_S = 60.0
"""Longest that the round takes which only notes the answers: until then nothing is compared."""
_IDLE_S = 0.2


class WeightsChanged(RuntimeError):
    """An expert's answer is another one than it was: weights or the device are damaged."""


class Canary:
    """Tries every held expert once in `period_s`, evenly spread."""

    def __init__(
        self, store: WeightStore, executor: Executor, metrics: ExpertMetrics, *, period_s: float
    ):
        self._store = store
        self._executor = executor
        self._metrics = metrics
        self._period_s = period_s
        chance = torch.Generator().manual_seed(1)
        self._row_1D = torch.randn((1, store.config.hidden_size), generator=chance).to(store.dtype)
        self._digests: dict[tuple[int, int], bytes] = {}

    async def run(self) -> None:
        """For ever. Raises WeightsChanged."""
        while True:
            pieces = list(self._store.pieces)
            new = any(piece not in self._digests for piece in pieces)
            round_s = min(self._period_s, FIRST_ROUND_S) if new else self._period_s
            for piece in pieces:
                await asyncio.sleep(round_s / len(pieces))
                await self._check(piece)
            if not pieces:
                await asyncio.sleep(_IDLE_S)

    async def _check(self, piece: tuple[int, int]) -> None:
        outcome = await self._compute(*piece)
        if isinstance(outcome, NotHolding):
            return  # unloaded meanwhile
        if isinstance(outcome, BaseException):
            raise outcome
        digest = hashlib.blake2b(outcome.float().numpy().tobytes(), digest_size=8).digest()
        if self._digests.setdefault(piece, digest) != digest:
            layer_idx, expert_id = piece
            raise WeightsChanged(
                f"layer {layer_idx} expert {expert_id} does not answer as it did after it was loaded"
            )
        self._metrics.canary.inc()

    async def _compute(self, layer_idx: int, expert_id: int) -> Any:
        """The expert's answer to the fixed row, or an exception; in its turn among the calls."""
        rows = Rows(
            hidden_ND=self._row_1D,
            row_of_pair_M=torch.zeros(1, dtype=torch.int64),
            expert_ids_M=torch.tensor([expert_id]),
            weights_M=torch.ones(1),
        )
        call = Call(
            call_id=0, layer_idx=layer_idx, is_decode=False, deadline_s=math.inf, per_pair=False,
            num_rows=1, unpack=lambda: rows, received_s=time.monotonic(),
        )  # fmt: skip
        answered: asyncio.Future[Tensor | BaseException] = (
            asyncio.get_running_loop().create_future()
        )

        def deliver(call: Call, result: Any, queue_us: int, compute_us: int) -> None:
            if not answered.done():
                answered.set_result(result)

        self._executor.submit("canary", call, deliver)
        return await answered
