"""Where a call's numbers lie on their way to the device, and its sums on their way back.

Each way is one copy. Rows and pairs are filled up: pairs of no slot, rows of no pair.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from moe_model.maths.expert_calls import CallRows

_ALIGNED = 128
"""Bytes: kernels are compiled once for all frames."""


@dataclass(frozen=True)
class Numbers:
    """As the kernels read them, one after the other in one piece of memory."""

    hidden_ND: Tensor  # bfloat16
    weights_M: Tensor  # float32
    slots_M: Tensor  # int32, -1: of no slot
    row_of_pair_M: Tensor  # int32
    first_of_row: Tensor  # int32 [N + 1]: each row's first pair
    num_bytes: int

    @classmethod
    def in_memory(
        cls, memory_B: Tensor | None, num_rows: int, num_pairs: int, hidden_size: int
    ) -> "Numbers":
        """Views of `memory_B`, uint8; None: of nothing, to learn how many bytes they take."""
        at = 0

        def part(dtype: torch.dtype, *shape: int) -> Tensor:
            nonlocal at
            first, num_bytes = at, math.prod(shape) * dtype.itemsize
            at += -(-num_bytes // _ALIGNED) * _ALIGNED
            if memory_B is None:
                return torch.empty(0)
            return memory_B[first : first + num_bytes].view(dtype).view(shape)

        return cls(
            hidden_ND=part(torch.bfloat16, num_rows, hidden_size),
            weights_M=part(torch.float32, num_pairs),
            slots_M=part(torch.int32, num_pairs),
            row_of_pair_M=part(torch.int32, num_pairs),
            first_of_row=part(torch.int32, num_rows + 1),
            num_bytes=at,
        )


@dataclass(frozen=True)
class Frame:
    """A call of so many rows and pairs, filled up: on the host, and its twin on the device."""

    host: Numbers
    device: Numbers
    host_B: Tensor
    device_B: Tensor
    sums_ND: Tensor  # float32, on the device
    answer_ND: Tensor  # float32, on the host

    def write(self, rows: CallRows, slots_M: np.ndarray) -> None:
        """On the host. Rows that were unpacked right here are not copied."""
        host, (num_rows, num_pairs) = self.host, (rows.hidden_ND.shape[0], slots_M.shape[0])
        if rows.hidden_ND.data_ptr() != host.hidden_ND.data_ptr():
            host.hidden_ND[:num_rows] = rows.hidden_ND
        if rows.weights_M.data_ptr() != host.weights_M.data_ptr():
            host.weights_M[:num_pairs] = rows.weights_M
        row_of_pair = rows.row_of_pair_M.numpy()
        for filled, given, no_value in (
            (host.slots_M.numpy(), slots_M, -1),
            (host.row_of_pair_M.numpy(), row_of_pair, 0),
        ):
            filled[:num_pairs] = given
            filled[num_pairs:] = no_value
        first = host.first_of_row.numpy()
        first[:] = np.searchsorted(row_of_pair, np.arange(len(first)))

    def send(self) -> None:
        self.device_B.copy_(self.host_B, non_blocking=True)

    def fetch(self) -> None:
        self.answer_ND.copy_(self.sums_ND, non_blocking=True)


class FrameMemory:
    """For one call at a time, of at most so many rows and pairs.

    On the host it is pinned where a device reads and writes it by itself.
    """

    def __init__(self, num_rows: int, num_pairs: int, hidden_size: int, device: torch.device):
        self.num_rows = num_rows
        self._hidden_size = hidden_size
        size = Numbers.in_memory(None, num_rows, num_pairs, hidden_size).num_bytes
        pinned = device.type == "cuda"
        self._host_B = torch.empty(size, dtype=torch.uint8, pin_memory=pinned)
        self._device_B = torch.empty(size, dtype=torch.uint8, device=device)
        self._sums_ND = torch.empty((num_rows, hidden_size), device=device)
        self._answer_ND = torch.empty((num_rows, hidden_size), pin_memory=pinned)

    def frame(self, num_rows: int, num_pairs: int) -> Frame:
        """All frames begin at the same place: the next one's numbers overwrite this one's."""
        sizes = (num_rows, num_pairs, self._hidden_size)
        host = Numbers.in_memory(self._host_B, *sizes)
        return Frame(
            host=host,
            device=Numbers.in_memory(self._device_B, *sizes),
            host_B=self._host_B[: host.num_bytes],
            device_B=self._device_B[: host.num_bytes],
            sums_ND=self._sums_ND[:num_rows],
            answer_ND=self._answer_ND[:num_rows],
        )
