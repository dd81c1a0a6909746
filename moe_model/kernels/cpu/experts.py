"""How are experts in panels computed? By a native kernel where there is one, else by torch."""

from torch import Tensor

from moe_model.config import ModelConfig
from moe_model.kernels.cpu.ffn import KernelExperts, expert_rows, expert_sums, routed_sums
from moe_model.kernels.cpu.packed import PackedMatrix
from moe_model.kernels.cpu.packing import pack_expert
from moe_model.maths.experts import HeldExperts, TorchExperts, each_expert
from moe_model.quant import StoredExpert


class PanelExperts:
    """Experts in the layout of the native kernels."""

    def __init__(self, num_held: int, config: ModelConfig, weight_format: str):
        self.packed = KernelExperts(num_held, config.hidden_size, config.expert_size, weight_format)

    def put(self, slot: int, expert: StoredExpert) -> None:
        self.put_panels(slot, *pack_expert(expert, self.packed.format))

    def put_panels(self, slot: int, gate_up: PackedMatrix, down: PackedMatrix) -> None:
        self.packed.put_packed(slot, gate_up, down)

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
        routed_sums(dispatch_TD, topk_ids_TK, topk_weights_TK, self.packed, out_TD)


class UnpackedExperts(PanelExperts, TorchExperts):
    """Packed in memory, but computed by torch: for formats without a native kernel here.

    Every call widens the experts it uses to float32, one at a time: correct, and slow.
    """

    def gate_up(self, rows_MD: Tensor, slots_M: Tensor) -> Tensor:
        """float32."""
        return each_expert(rows_MD.float(), slots_M, lambda slot: self.packed.unpacked(slot)[0])

    def down(self, rows_MF: Tensor, slots_M: Tensor) -> Tensor:
        """float32."""
        return each_expert(rows_MF.float(), slots_M, lambda slot: self.packed.unpacked(slot)[1])
