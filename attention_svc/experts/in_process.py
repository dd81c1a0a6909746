"""How are experts asked that are in this process? One machine, no hop."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor

from torch import Tensor

from attention_svc.experts.transport import HopTerms, HopTimes
from moe_model.backends.backend import Backend
from moe_model.maths.experts import HeldExperts
from moe_model.weights.open import Weights, put_experts
from moe_model.weights.packed_checkpoint import PackedCheckpoint

PAUSE_S = 0.005
"""For so long, and one more layer, computing may keep other tasks from the event loop."""


class InProcessTransport:
    """Holds every expert; the computation runs when its ticket is awaited."""

    on_host = False

    def __init__(
        self,
        weights: Weights,
        backend: Backend,
        *,
        weight_format: str,
        compute_thread: Executor,
        inline_rows: int,
        loaded: Callable[[], None] = lambda: None,
    ):
        """`inline_rows`: calls with more rows run on the compute thread. `loaded` is called after
        each expert."""
        self.layers: list[HeldExperts] = []
        for layer_idx in range(weights.config.num_layers):
            self.layers.append(_load(weights, layer_idx, weight_format, backend, loaded))
        self.compute_thread = compute_thread
        self.inline_rows = inline_rows
        self.paused_s = 0.0
        """When other tasks last had a turn between two layers."""

    def submit(
        self,
        layer_idx: int,
        hidden_TD: Tensor,
        topk_ids_TK: Tensor,
        topk_weights_TK: Tensor,
        terms: HopTerms,
        *,
        is_decode: bool,
    ) -> "_Ticket":
        return _Ticket(self, layer_idx, hidden_TD, topk_ids_TK, topk_weights_TK)

    def held_here(self) -> list[HeldExperts]:
        return self.layers

    def ready(self) -> tuple[bool, str]:
        return True, ""


class _Ticket:
    def __init__(
        self,
        transport: InProcessTransport,
        layer_idx: int,
        hidden: Tensor,
        ids: Tensor,
        weights: Tensor,
    ):
        self._transport = transport
        self._routed = (hidden, ids, weights)
        self._experts = transport.layers[layer_idx]

    async def wait_into(self, out_TD: Tensor) -> HopTimes:
        start = time.monotonic()
        if out_TD.shape[0] > self._transport.inline_rows:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._transport.compute_thread, self._compute, out_TD)
        else:
            self._compute(out_TD)
            if start - self._transport.paused_s > PAUSE_S:
                self._transport.paused_s = start
                await asyncio.sleep(0)  # lets the streams' events through
        elapsed_s = time.monotonic() - start
        return HopTimes(round_trip_s=elapsed_s, compute_s=elapsed_s)

    def _compute(self, out_TD: Tensor) -> None:
        self._experts.routed_sums(*self._routed, out_TD)


def _load(
    weights: Weights,
    layer_idx: int,
    weight_format: str,
    backend: Backend,
    loaded: Callable[[], None],
) -> HeldExperts:
    """Every expert of a layer, by id."""
    config = weights.config
    held = backend.room_for_experts(config.num_experts, config, weight_format)

    def verify(expert_id: int) -> None:
        # The values of mapped bytes are checked nowhere else.
        if isinstance(weights, PackedCheckpoint):
            weights.verify_expert(layer_idx, expert_id)

    slots = {expert_id: expert_id for expert_id in range(config.num_experts)}
    put_experts(weights, held, layer_idx, slots, verify, loaded)
    return held
