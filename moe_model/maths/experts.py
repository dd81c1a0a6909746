"""The grouped expert FFN: all rows of a message through all their experts at once.

Rounding points (one definition for reference, kernels and wire): w1 and w3
accumulate in float32; SiLU(gate) * up is rounded once to the compute dtype; w2
accumulates in float32, times the float32 routing weight, rounded once to the
compute dtype; partial sums add in float32 in ascending expert id.

`ExpertWeights`, the reference, keeps to them exactly. Backends have faster layouts behind the same
two calls, of which a message needs one: `rows` and `sums`.
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from moe_model.maths.linear import linear
from moe_model.quant import StoredExpert

_GROUPED_MM_COLUMNS = 4
"""torch's grouped GEMM takes strides in multiples of 16 bytes: four float32 columns."""


class HeldExperts(Protocol):
    """Experts of one layer in memory, each in a slot.

    A call takes rows in the compute dtype, hidden_ND, and (row, expert) pairs: of each the row
    it takes, row_of_pair_M int64 ascending; its expert's slot, slots_M int64, ascending in the
    expert ids of a row; and its float32 routing weight, weights_M.
    """

    def put(self, slot: int, expert: StoredExpert) -> None:
        """Fill a slot from a checkpoint. Raises ValueError naming file and tensor."""

    def move(self, slot: int, other: "HeldExperts", other_slot: int) -> None:
        """Fill a slot from another object of the same kind."""

    def rows(
        self, hidden_ND: Tensor, row_of_pair_M: Tensor, slots_M: Tensor, weights_M: Tensor
    ) -> Tensor:
        """One weighted row per pair, in their order: [M, D], compute dtype."""

    def sums(
        self, hidden_ND: Tensor, row_of_pair_M: Tensor, slots_M: Tensor, weights_M: Tensor
    ) -> Tensor:
        """Each row's pairs added in ascending expert id: float32 [N, D]."""

    def routed_sums(
        self, dispatch_TD: Tensor, topk_ids_TK: Tensor, topk_weights_TK: Tensor, out_TD: Tensor
    ) -> None:
        """`run_experts` where all experts are held, by id; the float32 sums go to `out_TD`."""


class TorchExperts(HeldExperts, ABC):
    """`rows` and `sums` over two grouped products."""

    @abstractmethod
    def gate_up(self, rows_MD: Tensor, slots_M: Tensor) -> Tensor:
        """w1 and w3 of each row's expert: [M, 2F]; slots ascending."""

    @abstractmethod
    def down(self, rows_MF: Tensor, slots_M: Tensor) -> Tensor:
        """w2 of each row's expert: [M, D]; slots ascending."""

    def rows(
        self, hidden_ND: Tensor, row_of_pair_M: Tensor, slots_M: Tensor, weights_M: Tensor
    ) -> Tensor:
        order_M = torch.argsort(slots_M, stable=True)
        sorted_slots_M = slots_M[order_M]
        gate_up = self.gate_up(hidden_ND[row_of_pair_M[order_M]], sorted_slots_M)
        gate, up = gate_up.chunk(2, dim=-1)
        activated_MF = F.silu(gate.float()).mul_(up).to(hidden_ND.dtype)
        out_MD = self.down(activated_MF, sorted_slots_M)
        weighted_MD = (out_MD * weights_M[order_M, None]).to(hidden_ND.dtype)
        rows_MD = torch.empty_like(weighted_MD)
        rows_MD[order_M] = weighted_MD
        return rows_MD

    def sums(
        self, hidden_ND: Tensor, row_of_pair_M: Tensor, slots_M: Tensor, weights_M: Tensor
    ) -> Tensor:
        rows_MD = self.rows(hidden_ND, row_of_pair_M, slots_M, weights_M)
        return combine_rows(rows_MD, row_of_pair_M, hidden_ND.shape[0])

    @torch.inference_mode()
    def routed_sums(
        self, dispatch_TD: Tensor, topk_ids_TK: Tensor, topk_weights_TK: Tensor, out_TD: Tensor
    ) -> None:
        out_TD.copy_(run_experts(dispatch_TD, topk_ids_TK, topk_weights_TK, self))


@dataclass(frozen=True, kw_only=True)
class ExpertWeights(TorchExperts):
    """Stacked experts of one layer, in the compute dtype, on any device.

    w13_EHD holds w1 (gate) rows first, then w3 (up) rows: [E, 2F, D]; w2_EDF is
    [E, D, F]. E counts the experts held, not those of the model.
    """

    w13_EHD: Tensor
    w2_EDF: Tensor

    @classmethod
    def room(
        cls,
        num_held: int,
        hidden_size: int,
        expert_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> "ExpertWeights":
        return cls(
            w13_EHD=torch.empty(
                (num_held, 2 * expert_size, hidden_size), dtype=dtype, device=device
            ),
            w2_EDF=torch.empty((num_held, hidden_size, expert_size), dtype=dtype, device=device),
        )

    def put(self, slot: int, expert: StoredExpert) -> None:
        w13_HD, w2_DF = expert.to(self.w2_EDF.dtype)
        self.w13_EHD[slot], self.w2_EDF[slot] = w13_HD, w2_DF

    def move(self, slot: int, other: HeldExperts, other_slot: int) -> None:
        assert isinstance(other, ExpertWeights)
        self.w13_EHD[slot] = other.w13_EHD[other_slot]
        self.w2_EDF[slot] = other.w2_EDF[other_slot]

    def gate_up(self, rows_MD: Tensor, slots_M: Tensor) -> Tensor:
        """float32."""
        return _grouped_linear(rows_MD, slots_M, self.w13_EHD)

    def down(self, rows_MF: Tensor, slots_M: Tensor) -> Tensor:
        """float32."""
        return _grouped_linear(rows_MF, slots_M, self.w2_EDF)


def run_experts(
    dispatch_TD: Tensor, topk_ids_TK: Tensor, topk_weights_TK: Tensor, experts: HeldExperts
) -> Tensor:
    """All experts of a layer on one device: float32 sums [T, D] in ascending expert id."""
    rows_M = _rows_of_pairs(*topk_ids_TK.shape, dispatch_TD.device)
    return experts.sums(
        dispatch_TD, rows_M, topk_ids_TK.flatten().long(), topk_weights_TK.flatten()
    )


@functools.lru_cache(maxsize=64)
def _rows_of_pairs(num_tokens: int, top_k: int, device: torch.device) -> Tensor:
    """int64 [T * K]: each row K times. Never changed, and the same for all layers of many steps."""
    return torch.arange(num_tokens, device=device).repeat_interleave(top_k)


def combine_rows(rows_MD: Tensor, row_of_pair_M: Tensor, num_rows: int) -> Tensor:
    """Add each row's pairs in float32, in the order given (ascending expert id): [N, D]."""
    sums_ND = torch.zeros((num_rows, rows_MD.shape[-1]), dtype=torch.float32, device=rows_MD.device)
    if rows_MD.device.type == "cpu":
        return sums_ND.index_add_(0, row_of_pair_M, rows_MD.float())
    # On CUDA `index_add_` adds in any order; this sorts and keeps the order of equal rows.
    return sums_ND.index_put_((row_of_pair_M,), rows_MD.float(), accumulate=True)


def _grouped_linear(rows_MD: Tensor, slots_M: Tensor, weights_EFD: Tensor) -> Tensor:
    """rows @ weights[slot]^T with float32 accumulation and a float32 result, slots ascending."""
    if weights_EFD.dtype == torch.float32:
        held, groups_M = weights_EFD, slots_M
    else:
        # torch's grouped GEMM rounds its result to the inputs' dtype; widening only the
        # experts in use keeps the float32 accumulators until the defined rounding point.
        used, groups_M = torch.unique_consecutive(slots_M, return_inverse=True)
        held = weights_EFD[used].float()
    rows_MD = rows_MD.float()
    unaligned = -held.shape[2] % _GROUPED_MM_COLUMNS
    if unaligned:  # zeros add nothing to a product; a copy per call, for odd sizes only
        rows_MD, held = F.pad(rows_MD, (0, unaligned)), F.pad(held, (0, unaligned))
    ends_E = torch.bincount(groups_M, minlength=held.shape[0]).cumsum(0).to(torch.int32)
    return F.grouped_mm(rows_MD, held.transpose(1, 2), offs=ends_E)


def each_expert(rows_MD: Tensor, slots_M: Tensor, weight_of: Callable[[int], Tensor]) -> Tensor:
    """rows @ weight^T, one GEMM for each expert in use; slots ascending."""
    used, counts = torch.unique_consecutive(slots_M, return_counts=True)
    groups = rows_MD.split(counts.tolist())
    outputs = [
        linear(rows, weight_of(slot)) for rows, slot in zip(groups, used.tolist(), strict=True)
    ]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)
