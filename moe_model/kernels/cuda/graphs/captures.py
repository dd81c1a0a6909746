"""How is work on a device captured? On one stream, into memory that an owner's graphs share."""

import contextlib
import logging
import weakref
from collections.abc import Callable
from typing import TypeVar

import torch

log = logging.getLogger(__name__)

Made = TypeVar("Made")

RESERVE_BYTES = 256 << 20
"""Of a device's memory, that graphs leave: they take what no allocator counts."""


class Captures:
    """Of graphs that never run at the same time."""

    def __init__(self, device: torch.device):
        # One: what a stream's work gave back is not lent to another stream's.
        self.stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()
        self._is_told = False
        self.count = self.taken_bytes = self.pool_bytes = 0
        """Graphs so far; what they took of the device; of that, by torch's allocator."""
        self._living: weakref.WeakSet[torch.cuda.CUDAGraph] = weakref.WeakSet()

    def is_full(self) -> bool:
        """Whether the device has too little memory left for another graph."""
        if torch.cuda.mem_get_info(self.stream.device)[0] >= RESERVE_BYTES:
            return False
        if not self._is_told:
            log.warning(
                "%d graphs, and under %d MB of the GPU's memory left: other shapes run kernel by "
                "kernel, slower; a lower --gpu-memory or --kv-memory leaves more",
                len(self._living),
                RESERVE_BYTES >> 20,
            )
        self._is_told = True
        return True

    def capture(self, work: Callable[[], Made]) -> tuple[torch.cuda.CUDAGraph, Made] | None:
        """`work` as a graph, and what it returned: it has run before, and so is compiled.

        None: there is no memory for it. Not torch.cuda.graph, which waits for the whole device and
        empties the allocator's cache: others may be computing or loading.
        """
        if self.is_full():
            return None
        torch.cuda.current_stream().synchronize()
        if not self._living:  # memory whose graphs are all gone cannot be used again
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        device = self.stream.device
        free_bytes = torch.cuda.mem_get_info(device)[0]
        reserved_bytes = torch.cuda.memory_reserved(device)
        with torch.cuda.stream(self.stream):
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                made = work()
            except BaseException:
                with contextlib.suppress(RuntimeError):  # the first failure is the one to tell
                    graph.capture_end()
                raise
            graph.capture_end()
        self._living.add(graph)
        self.count += 1
        self.taken_bytes += free_bytes - torch.cuda.mem_get_info(device)[0]
        self.pool_bytes += torch.cuda.memory_reserved(device) - reserved_bytes
        return graph, made

    def __str__(self) -> str:
        return (
            f"{self.count} graphs took {self.taken_bytes / 1e6:.0f} MB, of which "
            f"{self.pool_bytes / 1e6:.0f} MB are torch's"
        )
