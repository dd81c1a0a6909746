"""Where does the host find what steps have picked and chosen? In pinned memory, in turns."""

import torch
from torch import Tensor


class Results:
    """Room for those of two steps: one may be on its way while the other is read.

    On the device the next step's graph may take the memory of the last one's results.
    """

    def __init__(self, device: torch.device):
        self._is_cuda = device.type == "cuda"
        self._rooms: list[dict[torch.dtype, Tensor]] = [{}, {}]

    def send(self, *values: Tensor) -> list[Tensor]:
        """The same on the host, once the device has come that far, until two calls later.

        Args:
            values: one of each dtype.
        """
        if not self._is_cuda:
            return list(values)
        self._rooms.reverse()
        return [self._sent(one) for one in values]

    def _sent(self, value: Tensor) -> Tensor:
        room = self._rooms[0].get(value.dtype)
        if room is None or room.numel() < value.numel():
            room = torch.empty(value.numel(), dtype=value.dtype, pin_memory=True)
            self._rooms[0][value.dtype] = room
        host = room[: value.numel()].view(value.shape)
        return host.copy_(value, non_blocking=True)
