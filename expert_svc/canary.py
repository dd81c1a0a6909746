"""Does this pool still compute what it computed when its weights were loaded?

Loading verifies every expert against the manifest. Memory that goes bad afterwards shows only in
the generated tokens. So a fixed row goes through one expert after the other, queued with the calls
of prefill. The first answer must be finite, and every later one bit for bit the same.
An expert whose answer to a call contained NaN is tried at once.
"""

import asyncio
import contextlib
import hashlib
import math
import time
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from expert_svc.calls import Call
from expert_svc.compute import NotHolding
from expert_svc.executor import Executor
from expert_svc.metrics import ExpertMetrics
from expert_svc.weight_store import WeightStore
from moe_model.maths.expert_calls import CallRows

FIRST_ROUND_S = 60.0
"""Most time for the first round, which only records the answers that later rounds compare with."""
_IDLE_S = 0.2
_Piece = tuple[int, int]


class WeightsChanged(RuntimeError):
    """An expert's answer changed or is not finite: its weights or the device are damaged."""


class Canary:
    """Tries every held expert once in `period_s`, evenly spread; 0: only suspected ones."""

    def __init__(
        self, store: WeightStore, executor: Executor, metrics: ExpertMetrics, *, period_s: float
    ):
        self._store = store
        self._executor = executor
        self._metrics = metrics
        self._period_s = period_s
        chance = torch.Generator().manual_seed(1)
        self._row_1D = torch.randn((1, store.config.hidden_size), generator=chance).to(store.dtype)
        self._digests: dict[_Piece, bytes] = {}
        self._damage: WeightsChanged | None = None
        self._damaged = asyncio.Event()

    async def run(self) -> None:
        """Run until cancelled. Raises WeightsChanged."""
        while True:
            pieces = list(self._store.pieces) if self._period_s else []
            new = any(piece not in self._digests for piece in pieces)
            round_s = min(self._period_s, FIRST_ROUND_S) if new else self._period_s
            for piece in pieces:
                await self._pause(round_s / len(pieces))
                with contextlib.suppress(NotHolding):  # unloaded in the meantime
                    await self._check(piece, urgent=False)
            if not pieces:
                await self._pause(_IDLE_S if self._period_s else None)

    async def try_now(self, pieces: Iterable[_Piece]) -> None:
        """Try these experts before anything else. Raises NotHolding or WeightsChanged; `run` then
        raises the latter too."""
        for piece in pieces:
            try:
                await self._check(piece, urgent=True)
            except WeightsChanged as error:
                self._damage = error
                self._damaged.set()
                raise

    async def _pause(self, pause_s: float | None) -> None:
        """Sleep. Raises WeightsChanged if `try_now` has found damage."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._damaged.wait(), pause_s)
        if self._damage is not None:
            raise self._damage

    async def _check(self, piece: _Piece, *, urgent: bool) -> None:
        outcome = await self._compute(piece, urgent=urgent)
        if isinstance(outcome, BaseException):
            raise outcome
        layer_idx, expert_id = piece
        if not torch.isfinite(outcome).all():
            raise WeightsChanged(
                f"layer {layer_idx} expert {expert_id} answers a finite row with NaN or infinity"
            )
        digest = hashlib.blake2b(outcome.float().numpy().tobytes(), digest_size=8).digest()
        if self._digests.setdefault(piece, digest) != digest:
            raise WeightsChanged(
                f"layer {layer_idx} expert {expert_id} answers differently than after loading"
            )
        self._metrics.canary.inc()

    async def _compute(self, piece: _Piece, *, urgent: bool) -> Any:
        """The expert's answer to the fixed row, or an exception; queued like any call."""
        layer_idx, expert_id = piece
        rows = CallRows(
            hidden_ND=self._row_1D,
            row_of_pair_M=torch.zeros(1, dtype=torch.int64),
            expert_ids_M=torch.tensor([expert_id]),
            weights_M=torch.ones(1),
        )
        call = Call(
            call_id=0,
            layer_idx=layer_idx,
            is_decode=urgent,
            deadline_s=math.inf,
            per_pair=False,
            num_rows=1,
            unpack=lambda _room: rows,
            received_s=time.monotonic(),
        )
        answered: asyncio.Future[Tensor | BaseException] = (
            asyncio.get_running_loop().create_future()
        )

        def deliver(call: Call, result: Any, queue_us: int, compute_us: int) -> None:
            if not answered.done():
                answered.set_result(result.clone() if isinstance(result, Tensor) else result)

        self._executor.submit("canary", call, deliver)
        return await answered
