"""In which layout does a machine serve experts fastest? What lies behind `HeldExperts`."""

import torch
from torch import Tensor

from minimax_m2.config import ModelConfig
from minimax_m2.experts import ExpertWeights, HeldExperts, TorchExperts
from minimax_m2.linear import can_pack, linear, pack
from minimax_m2.quant import StoredExpert


def room_for_experts(
    num_held: int, config: ModelConfig, dtype: torch.dtype, device: torch.device
) -> HeldExperts:
    """Slots for `num_held` experts of a layer."""
    if can_pack(dtype, device):
        return OneDnnExperts(num_held)
    return ExpertWeights.room(num_held, config.hidden_size, config.expert_size, dtype, device)


class OneDnnExperts(TorchExperts):
    """bfloat16 in oneDNN's layout, one matrix each, through torch's bf16 GEMM.

    That also rounds to bfloat16 what w1, w3 and w2 accumulate.
    """

    def __init__(self, num_held: int):
        self._w13: list[Tensor] = [torch.empty(0)] * num_held
        self._w2: list[Tensor] = [torch.empty(0)] * num_held

    def put(self, slot: int, expert: StoredExpert) -> None:
        w13_HD, w2_DF = expert.to(torch.bfloat16)
        self._w13[slot], self._w2[slot] = pack(w13_HD), pack(w2_DF)

    def move(self, slot: int, other: HeldExperts, other_slot: int) -> None:
        assert isinstance(other, OneDnnExperts)
        self._w13[slot], self._w2[slot] = other._w13[other_slot], other._w2[other_slot]

    def gate_up(self, rows_MD: Tensor, slots_M: Tensor) -> Tensor:
        """bfloat16."""
        return _each_linear(rows_MD, slots_M, self._w13)

    def down(self, rows_MF: Tensor, slots_M: Tensor) -> Tensor:
        """bfloat16."""
        return _each_linear(rows_MF, slots_M, self._w2)


def _each_linear(rows_MD: Tensor, slots_M: Tensor, weights: list[Tensor]) -> Tensor:
    """rows @ weights[slot]^T, one GEMM for each expert in use; slots ascending."""
    used, counts = torch.unique_consecutive(slots_M, return_counts=True)
    groups = rows_MD.split(counts.tolist())
    outputs = [
        linear(rows, weights[slot]) for rows, slot in zip(groups, used.tolist(), strict=True)
    ]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)
