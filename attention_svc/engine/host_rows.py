"""How do a device's rows get to pools, and their sums back? By the host's memory, with one wait.

The thread that computes a layer also fetches its rows: the event loop never waits for the device.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from moe_model.gpus import wait_for_stream
from moe_model.maths.layer_steps import LayerSteps


class HostRows:
    """See LayerSteps. Rows and sums are on the host, in pinned memory if the device is a GPU."""

    def __init__(self, step: LayerSteps, device: torch.device):
        self._step, self._device = step, device
        self._sums_TD = step.combined_TD
        self.combined_TD = self._room(self._sums_TD)

    @property
    def hidden_TD(self) -> Tensor:
        return self._step.hidden_TD

    @torch.inference_mode()
    def up_to_dispatch(self, layer_idx: int) -> tuple[Tensor, Tensor, Tensor]:
        dispatch_TD, topk_ids_TK, topk_weights_TK = self._step.up_to_dispatch(layer_idx)
        rows = self._fetch(dispatch_TD), self._fetch(topk_ids_TK), self._fetch(topk_weights_TK)
        wait_for_stream(self._device)
        return rows

    def from_combine(self) -> None:
        """The sums are read by the time that the next layer's rows are there."""
        self._sums_TD.copy_(self.combined_TD, non_blocking=True)
        self._step.from_combine()

    def chosen(self) -> Sequence[np.ndarray] | np.ndarray:
        return self._step.chosen()

    def _fetch(self, rows: Tensor) -> Tensor:
        room = self._room(rows)
        room.copy_(rows, non_blocking=True)
        return room

    def _room(self, like: Tensor) -> Tensor:
        pinned = self._device.type == "cuda"
        return torch.empty(tuple(like.shape), dtype=like.dtype, pin_memory=pinned)
