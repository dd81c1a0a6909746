"""Calls as CUDA graphs: one for each layer's experts and number of rows, made at need."""

import logging
import weakref
from collections import OrderedDict
from collections.abc import Callable

import torch

from moe_model.kernels.cuda.experts import CudaExperts
from moe_model.kernels.cuda.graphs.captures import Captures

log = logging.getLogger(__name__)

MOST_GRAPHS = 1024
"""More than M2's 62 layers have at 11 numbers of rows."""


class CallGraphs:
    """Of the calls of one device, which run on one stream, one after the other."""

    def __init__(self, device: torch.device):
        self._captures = Captures(device)
        self.stream = self._captures.stream
        self._free_at_first = 0
        # Experts that are given up take their graphs along: only living ones are ever asked for.
        self._graphs: OrderedDict[tuple[weakref.ref[CudaExperts], int], torch.cuda.CUDAGraph] = (
            OrderedDict()
        )

    def run(self, held: CudaExperts, num_rows: int, launch: Callable[[], None]) -> None:
        """`launch` on the stream, which is the current one; from a graph if there is one."""
        key = (weakref.ref(held), num_rows)
        graph = self._graphs.get(key)
        if graph is not None:
            self._graphs.move_to_end(key)
            graph.replay()
            return
        launch()  # this call; and nothing may be compiled or loaded during the capture
        self._forget()
        made = self._captures.capture(launch)
        if made:
            self._graphs[key] = made[0]
            self._report(num_rows)

    def _forget(self) -> None:
        """Graphs of experts that are gone, and the one that was used longest ago if too many."""
        for key in [key for key in self._graphs if key[0]() is None]:
            del self._graphs[key]
        if len(self._graphs) == MOST_GRAPHS:
            self._graphs.popitem(last=False)

    def _report(self, num_rows: int) -> None:
        """At 1, 2, 4, ... graphs."""
        free, _ = torch.cuda.mem_get_info(self.stream.device)
        self._free_at_first = self._free_at_first or free
        count = len(self._graphs)
        if count & (count - 1) == 0:
            log.info(
                "a graph for calls of %d rows, the %dth: %.0f MB since the first",
                num_rows,
                count,
                (self._free_at_first - free) / 1e6,
            )
