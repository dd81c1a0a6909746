"""Are pieces that went out of service answered again? Asked with rows made up here.

While pieces are out the service is not ready and gets no requests, so that without these probes it
would not notice that they are back.
"""

import asyncio
import logging

import torch

from attention_svc.experts.call import ExpertCall
from attention_svc.experts.call_parts import CallContext
from attention_svc.experts.health import UNKNOWN_TIMEOUT_S
from attention_svc.experts.transport import ExpertsUnavailable, HopTerms, StepPoisoned
from rpc.loop_failures import LoopFailures

log = logging.getLogger(__name__)

PROBE_S = 0.25
ROWS_AT_ONCE = 64


class Prober:
    """Asks for each piece that is out, with one row. The calls themselves note the outcome."""

    def __init__(self, context: CallContext, hidden_size: int, dtype: torch.dtype):
        """`dtype`: that of rows on the wire."""
        self._context = context
        chance = torch.Generator().manual_seed(1)
        self._row_1D = torch.randn((1, hidden_size), generator=chance).to(dtype)

    async def run(self) -> None:
        """Until cancelled; without it the service would stay unready."""
        failures = LoopFailures(log, "a probe for experts failed")
        while True:
            await asyncio.sleep(PROBE_S)
            if self._context.outages.waiting:
                continue  # a step is asking for them
            for layer_idx, experts in self._context.outages.by_layer().items():
                for first in range(0, len(experts), ROWS_AT_ONCE):
                    with failures:
                        await self._probe(layer_idx, experts[first : first + ROWS_AT_ONCE])

    async def _probe(self, layer_idx: int, experts: list[int]) -> None:
        ids_N1 = torch.tensor(experts, dtype=torch.int32)[:, None]
        hidden_ND = self._row_1D.repeat(len(experts), 1)
        rows = (hidden_ND, ids_N1, torch.ones(ids_N1.shape))
        terms = HopTerms(timeout_s=UNKNOWN_TIMEOUT_S, is_probe=True)
        call = ExpertCall(self._context, terms, layer_idx, rows, is_decode=True)
        try:
            async with asyncio.timeout(UNKNOWN_TIMEOUT_S):
                call.start()
                await call.wait_into(torch.empty(hidden_ND.shape))
        except (ExpertsUnavailable, StepPoisoned, TimeoutError) as error:
            log.debug("layer %d is still out: %s", layer_idx, error)
