"""How is work on a device captured? On one stream, into memory that an owner's graphs share."""

import weakref
from collections.abc import Callable
from typing import TypeVar

import torch

Made = TypeVar("Made")


class Captures:
    """Of graphs that never run at the same time."""

    def __init__(self, device: torch.device):
        # One: what a stream's work gave back is not lent to another stream's.
        self.stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()
        self._living: weakref.WeakSet[torch.cuda.CUDAGraph] = weakref.WeakSet()

    def capture(self, work: Callable[[], Made]) -> tuple[torch.cuda.CUDAGraph, Made]:
        """`work` as a graph, and what it returned: it has run before, and so is compiled.

        Not torch.cuda.graph, which waits for the whole device and empties the allocator's cache:
        others may be computing or loading.
        """
        torch.cuda.current_stream().synchronize()
        if not self._living:  # memory whose graphs are all gone cannot be used again
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(self.stream):
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                made = work()
            finally:
                graph.capture_end()
        self._living.add(graph)
        return graph, made
