"""How are blocks of a CUDA device copied to pinned memory and back, while steps go on?

A few blocks at a time go through a buffer on the device: gathered there or scattered from there by
the stream of the steps, in microseconds, and copied over the bus by a stream of its own. So a
block may be written as soon as it is gathered, and a step that reads it waits only for the copies
it needs. The host waits for nothing.
"""

import weakref

import torch
from torch import Tensor

from attention_svc.kv.read_back_cost import ReadBackCost

BUFFER_BYTES = 32 << 20
"""Of each of the two buffers, of which one is filled while the other is copied."""


class SideStream:
    """Copies between pages [layers, blocks, words], keys and values, and pinned slots
    [slots, 2, layers, words].
    """

    def __init__(self, pages: tuple[Tensor, Tensor], slots: Tensor, cost: ReadBackCost):
        self._pages, self._slots, self._cost = pages, slots, cost
        self._device = pages[0].device
        self._stream = torch.cuda.Stream(self._device)
        shape = (max(1, BUFFER_BYTES // slots[0].nbytes), *slots.shape[1:])
        self._buffers = [
            _Buffer(torch.empty(shape, dtype=slots.dtype, device=self._device)) for _ in range(2)
        ]
        self._measured: tuple[int, torch.cuda.Event, torch.cuda.Event] | None = None

    def move_out(self, blocks: dict[int, int]) -> None:
        """Copy to each slot a block."""
        steps = torch.cuda.current_stream(self._device)
        index = self._on_device(list(blocks.values()))
        start = self._now()
        for first, runs in self._batches(list(blocks)):
            buffer, count = self._next(), sum(map(len, runs))
            steps.wait_event(buffer.idle)
            at = index[first : first + count]
            for half, pages in enumerate(self._pages):
                buffer.words[:count, half].copy_(pages.index_select(1, at).transpose(0, 1))
            self._stream.wait_event(steps.record_event())
            with torch.cuda.stream(self._stream):
                done = 0
                for run in runs:
                    ready = buffer.words[done : done + len(run)]
                    self._slots[run.start : run.stop].copy_(ready, non_blocking=True)
                    done += len(run)
            buffer.idle.record(self._stream)
        self._measure(len(blocks), start)

    def read_back(self, slots: dict[int, int]) -> None:
        """Copy to each block a slot."""
        steps = torch.cuda.current_stream(self._device)
        index = self._on_device(list(slots))
        start = self._now()
        for first, runs in self._batches(list(slots.values())):
            buffer, count = self._next(), sum(map(len, runs))
            self._stream.wait_event(buffer.idle)
            with torch.cuda.stream(self._stream):
                done = 0
                for run in runs:
                    held = self._slots[run.start : run.stop]
                    buffer.words[done : done + len(run)].copy_(held, non_blocking=True)
                    done += len(run)
            steps.wait_event(self._stream.record_event())
            at = index[first : first + count]
            for half, pages in enumerate(self._pages):
                pages.index_copy_(1, at, buffer.words[:count, half].transpose(0, 1))
            buffer.idle.record(steps)
        self._measure(len(slots), start)

    def _batches(self, slots: list[int]) -> list[tuple[int, list[range]]]:
        """Positions in `slots` where batches that fit a buffer begin, and their runs."""
        size = self._buffers[0].words.shape[0]
        return [
            (first, consecutive(slots[first : first + size]))
            for first in range(0, len(slots), size)
        ]

    def _next(self) -> "_Buffer":
        self._buffers.reverse()
        return self._buffers[0]

    def _on_device(self, blocks: list[int]) -> Tensor:
        return torch.tensor(blocks).pin_memory().to(self._device, non_blocking=True)

    def _now(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record(self._stream)
        return event

    def _measure(self, num_blocks: int, start: torch.cuda.Event) -> None:
        """Note the time of earlier copies if they have ended, and let these be the next."""
        if self._measured is not None:
            count, began, ended = self._measured
            if not ended.query():
                return
            self._cost.note_copied(count, began.elapsed_time(ended) / 1e3)
        self._measured = (num_blocks, start, self._now())


class _Buffer:
    def __init__(self, words: Tensor):
        self.words = words
        """[blocks, 2, layers, words]."""
        self.idle = torch.cuda.Event()
        """Whoever used it last is done with it."""


def consecutive(slots: list[int]) -> list[range]:
    """The same slots in the same order, as ranges: each is copied at once."""
    runs: list[range] = []
    for slot in slots:
        if runs and runs[-1].stop == slot:
            runs[-1] = range(runs[-1].start, slot + 1)
        else:
            runs.append(range(slot, slot + 1))
    return runs


def pin(memory: Tensor, owner: object) -> None:
    """Lock the pages of host memory for as long as the owner lives. Raises ValueError if it cannot.

    torch's own pinned memory would be rounded up to a power of two.
    """
    runtime = torch.cuda.cudart()
    result = runtime.cudaHostRegister(memory.data_ptr(), memory.nbytes, 0)
    if result != runtime.cudaError.success:
        raise ValueError(f"--kv-host-memory: {memory.nbytes} bytes cannot be pinned ({result})")
    weakref.finalize(owner, _unpin, memory)  # keeps the memory until then


def _unpin(memory: Tensor) -> None:
    torch.cuda.cudart().cudaHostUnregister(memory.data_ptr())
