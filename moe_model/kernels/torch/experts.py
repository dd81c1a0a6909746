"""How are experts computed with torch's bfloat16 GEMM?"""

import torch
from torch import Tensor

from moe_model.maths.experts import HeldExperts, TorchExperts, each_expert
from moe_model.maths.linear import pack
from moe_model.quant import StoredExpert


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
        return each_expert(rows_MD, slots_M, self._w13.__getitem__)

    def down(self, rows_MF: Tensor, slots_M: Tensor) -> Tensor:
        """bfloat16."""
        return each_expert(rows_MF, slots_M, self._w2.__getitem__)
