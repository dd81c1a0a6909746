"""In which layout does a machine serve experts fastest? What lies behind `HeldExperts`."""

from collections.abc import Callable

import torch
from torch import Tensor

from moe_model.backends.choice import KERNEL_NAMES, choose_kernel
from moe_model.backends.packing import pack_expert
from moe_model.config import ModelConfig
from moe_model.kernels.cpu.ffn import KernelExperts, expert_rows, expert_sums, routed_sums
from moe_model.maths.experts import ExpertWeights, HeldExperts, TorchExperts
from moe_model.maths.linear import can_pack, linear, pack
from moe_model.quant import StoredExpert


def room_for_experts(
    num_held: int,
    config: ModelConfig,
    weight_format: str,
    dtype: torch.dtype,
    device: torch.device,
) -> HeldExperts:
    """Slots for `num_held` experts of a layer; `dtype` is the rows'."""
    if choose_kernel(weight_format, dtype, device).is_native:
        return NativeExperts(num_held, config, weight_format)
    if weight_format not in ("float32", "bfloat16"):
        return UnpackedExperts(num_held, config, weight_format)
    if can_pack(dtype, device):
        return OneDnnExperts(num_held)
    return ExpertWeights.room(num_held, config.hidden_size, config.expert_size, dtype, device)


class PanelExperts:
    """Experts in the layout of the native kernels."""

    def __init__(self, num_held: int, config: ModelConfig, weight_format: str):
        self._format = weight_format
        self.packed = KernelExperts(
            num_held, config.hidden_size, config.expert_size, KERNEL_NAMES[weight_format]
        )

    def put(self, slot: int, expert: StoredExpert) -> None:
        self.packed.put_packed(slot, *pack_expert(expert, self._format))

    def move(self, slot: int, other: HeldExperts, other_slot: int) -> None:
        assert isinstance(other, PanelExperts)
        self.packed.put_packed(slot, *other.packed.get_packed(other_slot))


class NativeExperts(PanelExperts):
    """A message is one fused call."""

    def rows(
        self, hidden_ND: Tensor, row_of_pair_M: Tensor, slots_M: Tensor, weights_M: Tensor
    ) -> Tensor:
        return expert_rows(hidden_ND, row_of_pair_M, slots_M, weights_M, self.packed)

    def sums(
        self, hidden_ND: Tensor, row_of_pair_M: Tensor, slots_M: Tensor, weights_M: Tensor
    ) -> Tensor:
        return expert_sums(hidden_ND, row_of_pair_M, slots_M, weights_M, self.packed)

    def routed_sums(
        self, dispatch_TD: Tensor, topk_ids_TK: Tensor, topk_weights_TK: Tensor, out_TD: Tensor
    ) -> None:
        """`reference.run_experts` where all experts are held, by id; the sums go to `out_TD`."""
        routed_sums(dispatch_TD, topk_ids_TK, topk_weights_TK, self.packed, out_TD)


class UnpackedExperts(PanelExperts, TorchExperts):
    """Packed in memory, but computed by torch: for formats without a native kernel here.

    Every call widens the experts it uses to float32, one at a time: correct, and slow.
    """

    def gate_up(self, rows_MD: Tensor, slots_M: Tensor) -> Tensor:
        """float32."""
        return _each(rows_MD.float(), slots_M, lambda slot: self.packed.unpacked(slot)[0])

    def down(self, rows_MF: Tensor, slots_M: Tensor) -> Tensor:
        """float32."""
        return _each(rows_MF.float(), slots_M, lambda slot: self.packed.unpacked(slot)[1])


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
        return _each(rows_MD, slots_M, self._w13.__getitem__)

    def down(self, rows_MF: Tensor, slots_M: Tensor) -> Tensor:
        """bfloat16."""
        return _each(rows_MF, slots_M, self._w2.__getitem__)


def _each(rows_MD: Tensor, slots_M: Tensor, weight_of: Callable[[int], Tensor]) -> Tensor:
    """rows @ weight^T, one GEMM for each expert in use; slots ascending."""
    used, counts = torch.unique_consecutive(slots_M, return_counts=True)
    groups = rows_MD.split(counts.tolist())
    outputs = [
        linear(rows, weight_of(slot)) for rows, slot in zip(groups, used.tolist(), strict=True)
    ]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)
