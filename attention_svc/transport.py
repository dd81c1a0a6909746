"""The seam between attention and experts: submit rows, wait for their sum.

Implementations: `grpc_transport` (remote pools) and `in_process`. Tensors may be
on any device; the transport owns its staging.
"""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class ExpertsUnavailable(Exception):
    """A call could not be served: no holder, a broken stream, a timeout, a corrupt answer."""


@dataclass(slots=True)
class HopTimes:
    """Where one layer's expert call spent its time, in seconds; of the slowest pool."""

    round_trip_s: float = 0.0
    queue_s: float = 0.0
    compute_s: float = 0.0

    @property
    def network_s(self) -> float:
        return max(0.0, self.round_trip_s - self.queue_s - self.compute_s)


class Ticket(Protocol):
    """One submitted call."""

    async def wait_into(self, out_TD: Tensor) -> HopTimes:
        """Write the float32 sums of all experts into `out_TD`; to be awaited once.

        Raises ExpertsUnavailable. Cancelling it abandons the call.
        """


class ExpertTransport(Protocol):
    """Sends rows to experts."""

    def submit(
        self,
        layer_idx: int,
        hidden_TD: Tensor,
        topk_ids_TK: Tensor,
        topk_weights_TK: Tensor,
        timeout_s: float,
        *,
        is_decode: bool,
    ) -> Ticket:
        """Start a call; never blocks. `topk_ids_TK` int32, `topk_weights_TK` float32.

        Raises ExpertsUnavailable when a piece has no holder.
        """

    def ready(self) -> tuple[bool, str]:
        """(every piece has a holder, else the reason)."""
