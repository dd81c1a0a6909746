"""How does a call's computation begin in the CPU's memory and end there, wherever experts are?"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from moe_model.config import ModelConfig
from moe_model.cost import expert_row_flops, inline_rows
from moe_model.maths.experts import HeldExperts


@dataclass(frozen=True, slots=True)
class CallRows:
    """A call's numbers, on the CPU: N rows, and M (row, expert) pairs in their order."""

    hidden_ND: Tensor  # the compute dtype
    row_of_pair_M: Tensor  # int64, ascending
    expert_ids_M: Tensor  # int64, ascending within a row
    weights_M: Tensor  # float32


Room = Callable[[int, int], CallRows]
"""(N, M) -> where a call's numbers are to be written."""


class ExpertCalls(Protocol):
    """Carries calls to a layer's experts and their answers back; one call at a time."""

    @property
    def inline_rows(self) -> int:
        """Most rows of a call that may hold up an event loop; longer ones take a thread."""

    @property
    def room(self) -> Room | None:
        """Where the rows of the next call are best written; None: anywhere."""

    def prepare(self, held: HeldExperts) -> None:
        """After the slots are filled and before the first call; on the thread that filled them."""

    def run(
        self, held: HeldExperts, rows: CallRows, slots_M: np.ndarray, *, per_pair: bool
    ) -> Tensor:
        """float32 [N, D], each row's pairs added in ascending expert id; or `per_pair` a row for
        each pair, [M, D] in the compute dtype.

        On the CPU. The next call may write into the same memory: who keeps it copies it.
        """


class PlainCalls:
    """See ExpertCalls: on a CPU nothing is carried, elsewhere torch copies tensor by tensor."""

    room = None

    def __init__(self, config: ModelConfig, device: torch.device):
        self._device = device
        self._here = device.type == "cpu"
        self.inline_rows = inline_rows(expert_row_flops(config)) if self._here else 0

    def prepare(self, held: HeldExperts) -> None:
        pass

    def run(
        self, held: HeldExperts, rows: CallRows, slots_M: np.ndarray, *, per_pair: bool
    ) -> Tensor:
        # Few operators, since the caller waits: see docs/cold-caches.md.
        compute = held.rows if per_pair else held.sums
        slots = torch.from_numpy(slots_M)
        given = (rows.hidden_ND, rows.row_of_pair_M, slots, rows.weights_M)
        if self._here:
            return compute(*given)
        return compute(*(tensor.to(self._device) for tensor in given)).cpu()
