"""Calls to experts on a GPU: one copy there, one back, and one wait.

Calls of few rows are filled up and replayed from CUDA graphs; longer ones launch the same kernels
one by one. The bits are the same.
"""

import contextlib
import logging
import time
from collections.abc import Hashable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from moe_model.config import ModelConfig
from moe_model.kernels.cuda.experts import CudaExperts
from moe_model.kernels.cuda.graphs.call_frames import Frame, FrameMemory, Numbers
from moe_model.kernels.cuda.graphs.call_graphs import CallGraphs
from moe_model.kernels.cuda.graphs.step_numbers import ROWS
from moe_model.maths.expert_calls import CallRows
from moe_model.maths.experts import HeldExperts

log = logging.getLogger(__name__)

MOST_WARMED_ROWS = 4096
"""Longer calls take no other kernels, unless a layer has more than 500 experts here."""


class CudaCalls:
    """See ExpertCalls. Elsewhere than on a CUDA device nothing is captured."""

    inline_rows = 0
    """Waiting for the device would hold up pings and health checks."""

    def __init__(self, config: ModelConfig, device: torch.device):
        self._config, self._device = config, device
        self._graphs = CallGraphs(device) if device.type == "cuda" else None
        few = self._memory(ROWS[-1])
        self._few = {rows: few.frame(rows, self._pairs(rows * config.top_k)) for rows in ROWS}
        self._many: FrameMemory | None = None
        self._warm: set[Hashable] = set()

    def room(self, num_rows: int, num_pairs: int) -> CallRows:
        host = self._frame(num_rows, num_pairs).host
        return CallRows(
            hidden_ND=host.hidden_ND[:num_rows],
            row_of_pair_M=torch.empty(num_pairs, dtype=torch.int64),
            expert_ids_M=torch.empty(num_pairs, dtype=torch.int64),
            weights_M=host.weights_M[:num_pairs],
        )

    @torch.inference_mode()
    def prepare(self, held: HeldExperts) -> None:
        """Waits until the slots are filled, and compiles the kernels of calls of any length."""
        assert isinstance(held, CudaExperts)
        if self._graphs is None:
            return
        started_s, compiled = time.monotonic(), 0
        for num_rows in (*ROWS, *(2**i for i in range(8, 20) if 2**i <= MOST_WARMED_ROWS)):
            num_pairs = self._pairs(num_rows * self._config.top_k)
            if held.kernels(num_pairs) not in self._warm:
                self._warm.add(held.kernels(num_pairs))
                self._compute_nothing(held, num_rows, num_pairs)
                compiled += 1
        torch.cuda.current_stream(self._device).synchronize()
        if compiled:
            log.info("kernels for calls are ready after %.1f s", time.monotonic() - started_s)

    @torch.inference_mode()
    def run(
        self, held: HeldExperts, rows: CallRows, slots_M: np.ndarray, *, per_pair: bool
    ) -> Tensor:
        assert isinstance(held, CudaExperts)
        num_rows, num_pairs = rows.hidden_ND.shape[0], slots_M.shape[0]
        frame = self._frame(num_rows, num_pairs)
        frame.write(rows, slots_M)
        graphs = self._graphs
        with self._on_stream():
            if per_pair:
                answer = self._rows(held, frame, num_pairs)
            else:
                launch = partial(_launch_sums, held, frame)
                if graphs and num_rows <= ROWS[-1]:
                    graphs.run(held, frame.sums_ND.shape[0], launch)
                else:
                    launch()
                answer = frame.answer_ND[:num_rows]
        if graphs:
            graphs.stream.synchronize()
        return answer

    def _frame(self, num_rows: int, num_pairs: int) -> Frame:
        if num_rows <= ROWS[-1]:
            return self._few[next(rows for rows in ROWS if rows >= num_rows)]
        if self._many is None or self._many.num_rows < num_rows:
            self._many = self._memory(1 << (num_rows - 1).bit_length())
        return self._many.frame(num_rows, self._pairs(num_pairs))

    def _memory(self, num_rows: int) -> FrameMemory:
        """Of the calls' stream: another one's, given back while its work goes on, would not do."""
        num_pairs = self._pairs(num_rows * self._config.top_k)
        with self._on_stream():
            return FrameMemory(num_rows, num_pairs, self._config.hidden_size, self._device)

    def _on_stream(self) -> contextlib.AbstractContextManager[object]:
        return torch.cuda.stream(self._graphs.stream) if self._graphs else contextlib.nullcontext()

    @staticmethod
    def _pairs(num_pairs: int) -> int:
        """Filled up, so that kernels are compiled once for all numbers."""
        return num_pairs if num_pairs <= 16 else -(-num_pairs // 16) * 16

    def _rows(self, held: CudaExperts, frame: Frame, num_pairs: int) -> Tensor:
        frame.send()
        numbers = frame.device
        rows_MD = held.rows(
            numbers.hidden_ND, numbers.row_of_pair_M, numbers.slots_M, numbers.weights_M
        )[:num_pairs]
        answer = torch.empty(rows_MD.shape, dtype=rows_MD.dtype, pin_memory=rows_MD.is_cuda)
        return answer.copy_(rows_MD, non_blocking=True)

    def _compute_nothing(self, held: CudaExperts, num_rows: int, num_pairs: int) -> None:
        """In memory of its own: another thread may be computing."""
        sizes = (num_rows, num_pairs, self._config.hidden_size)
        num_bytes = Numbers.in_memory(None, *sizes).num_bytes
        memory_B = torch.zeros(num_bytes, dtype=torch.uint8, device=self._device)
        numbers = Numbers.in_memory(memory_B, *sizes)
        numbers.slots_M.fill_(-1)
        out_ND = torch.empty(numbers.hidden_ND.shape, device=self._device)
        _sums(held, numbers, out_ND)


def _launch_sums(held: CudaExperts, frame: Frame) -> None:
    frame.send()
    _sums(held, frame.device, frame.sums_ND)
    frame.fetch()


def _sums(held: CudaExperts, numbers: Numbers, out_ND: Tensor) -> None:
    held.listed_sums(
        numbers.hidden_ND,
        numbers.row_of_pair_M,
        numbers.slots_M,
        numbers.weights_M,
        numbers.first_of_row,
        out_ND,
    )
