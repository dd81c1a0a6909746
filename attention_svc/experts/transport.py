"""The seam between attention and experts: submit rows, wait for their sums.

Implementations: `over_grpc` (remote pools) and `in_process`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from moe_model.maths.experts import HeldExperts

_LONGEST_TIMEOUT_MS = 2**31


class ExpertsUnavailable(Exception):
    """A call was not served within the time that its terms allow."""


class StepPoisoned(Exception):
    """The rows seem to break pools, or are refused: not to be sent again in the same step."""


class Patience(Protocol):
    """How much longer the calls of one step, one after the other, may wait for experts."""

    def begin(self) -> float:
        """A call waits from now on. Returns the longest that it may, in seconds."""

    def end(self) -> None:
        """The call no longer waits."""


@dataclass(frozen=True, kw_only=True)
class HopTerms:
    """How far a transport goes to have a call served."""

    timeout_s: float  # longest wait for experts, from a call's first failure
    patience: Patience | None = None  # shared by a step's calls; None: the call's own
    wanted: Callable[[], bool] = lambda: True  # False: no sequence wants the step any more
    is_probe: bool = False  # asks whether pieces are back; no step waits for it
    max_breaks: int = 2  # pools that may break during a call before its rows are suspected
    timeout_ms: int = field(init=False)  # the same as `timeout_s`, for the wire

    def __post_init__(self) -> None:
        timeout_ms = min(_LONGEST_TIMEOUT_MS, max(1, int(self.timeout_s * 1000)))
        object.__setattr__(self, "timeout_ms", timeout_ms)


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

        Raises ExpertsUnavailable, StepPoisoned. Cancelling it abandons the call.
        """


class ExpertTransport(Protocol):
    """Sends rows to experts."""

    @property
    def on_host(self) -> bool:
        """Whether it takes tensors on the CPU only; otherwise on the experts' device."""

    def submit(
        self,
        layer_idx: int,
        hidden_TD: Tensor,
        topk_ids_TK: Tensor,
        topk_weights_TK: Tensor,
        terms: HopTerms,
        *,
        is_decode: bool,
    ) -> Ticket:
        """Start a call; never blocks. `topk_ids_TK` int32, `topk_weights_TK` float32; contiguous.

        The caller leaves the tensors unchanged until it has awaited the ticket.
        """

    def held_here(self) -> Sequence[HeldExperts]:
        """Every layer's experts, if they are in this process; else nothing."""

    def ready(self) -> tuple[bool, str]:
        """(whether every piece has a holder, the reason when not)."""
