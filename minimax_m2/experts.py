"""The grouped expert FFN: all rows of a message through all their experts at once.

Rounding points (one definition for reference, kernels and wire): w1 and w3
accumulate in float32; SiLU(gate) * up is rounded once to the compute dtype; w2
accumulates in float32, times the float32 routing weight, rounded once to the
compute dtype; partial sums add in float32 in ascending expert id.

`ExpertWeights` keeps them exactly. `PackedExperts` (bfloat16 on a CPU) uses torch's
bf16 GEMM, which also rounds to bfloat16 what w1, w3 and w2 accumulate.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from minimax_m2.linear import can_pack, linear, pack

_GROUPED_MM_COLUMNS = 4
"""torch's grouped GEMM takes strides in multiples of 16 bytes: four float32 columns."""


@dataclass(frozen=True, kw_only=True)
class ExpertWeights:
    """Stacked experts of one layer, in the compute dtype.

    w13_EHD holds w1 (gate) rows first, then w3 (up) rows: [E, 2F, D]; w2_EDF is
    [E, D, F]. E counts the experts held, not those of the model.
    """

    w13_EHD: Tensor
    w2_EDF: Tensor

    def put(self, slot: int, w13_HD: Tensor, w2_DF: Tensor) -> None:
        """Copy an expert's matrices into the stacks."""
        self.w13_EHD[slot] = w13_HD
        self.w2_EDF[slot] = w2_DF

    def get(self, slot: int) -> tuple[Tensor, Tensor]:
        """An expert's w13 and w2, as `put` takes them."""
        return self.w13_EHD[slot], self.w2_EDF[slot]

    def gate_up(self, rows_MD: Tensor, slots_M: Tensor) -> Tensor:
        """w1 and w3 of each row's expert: float32 [M, 2F]; slots ascending."""
        return _grouped_linear(rows_MD, slots_M, self.w13_EHD)

    def down(self, rows_MF: Tensor, slots_M: Tensor) -> Tensor:
        """w2 of each row's expert: float32 [M, D]; slots ascending."""
        return _grouped_linear(rows_MF, slots_M, self.w2_EDF)


class PackedExperts:
    """Experts of one layer in oneDNN's layout, one matrix each; results are bfloat16."""

    def __init__(self, num_held: int):
        self._w13: list[Tensor] = [torch.empty(0)] * num_held
        self._w2: list[Tensor] = [torch.empty(0)] * num_held

    def put(self, slot: int, w13_HD: Tensor, w2_DF: Tensor) -> None:
        self._w13[slot], self._w2[slot] = pack(w13_HD), pack(w2_DF)

    def get(self, slot: int) -> tuple[Tensor, Tensor]:
        return self._w13[slot], self._w2[slot]

    def gate_up(self, rows_MD: Tensor, slots_M: Tensor) -> Tensor:
        return _each_linear(rows_MD, slots_M, self._w13)

    def down(self, rows_MF: Tensor, slots_M: Tensor) -> Tensor:
        return _each_linear(rows_MF, slots_M, self._w2)


HeldExperts = ExpertWeights | PackedExperts


def room_for_experts(
    num_held: int, hidden_size: int, expert_size: int, dtype: torch.dtype, device: torch.device
) -> HeldExperts:
    """What serves `num_held` experts fastest in this dtype on this device; `put` each of them."""
    if can_pack(dtype, device):
        return PackedExperts(num_held)
    w13_shape, w2_shape = (2 * expert_size, hidden_size), (hidden_size, expert_size)
    return ExpertWeights(
        w13_EHD=torch.empty((num_held, *w13_shape), dtype=dtype, device=device),
        w2_EDF=torch.empty((num_held, *w2_shape), dtype=dtype, device=device),
    )


def pair_rows(row_splits: Tensor, num_pairs: int) -> Tensor:
    """Row index of each (row, expert) pair, int64 [M], from CSR splits int [N+1]."""
    counts_N = (row_splits[1:] - row_splits[:-1]).long()
    rows_N = torch.arange(counts_N.shape[0], device=row_splits.device)
    return torch.repeat_interleave(rows_N, counts_N, output_size=num_pairs)


def expert_rows(
    hidden_ND: Tensor,
    row_of_pair_M: Tensor,
    slots_M: Tensor,
    weights_M: Tensor,
    held: HeldExperts,
) -> Tensor:
    """One weighted output row per (row, expert) pair.

    Args:
        hidden_ND: rows in the compute dtype.
        row_of_pair_M: int64, which row each pair takes.
        slots_M: int64, index of the pair's expert within `held`.
        weights_M: float32 routing weights.

    Returns:
        rows_MD: compute dtype, in the order of the pairs.
    """
    order_M = torch.argsort(slots_M, stable=True)
    sorted_slots_M = slots_M[order_M]
    gate_up = held.gate_up(hidden_ND[row_of_pair_M[order_M]], sorted_slots_M)
    gate, up = gate_up.chunk(2, dim=-1)
    activated_MF = F.silu(gate.float()).mul_(up).to(hidden_ND.dtype)
    out_MD = held.down(activated_MF, sorted_slots_M)
    weighted_MD = (out_MD * weights_M[order_M, None]).to(hidden_ND.dtype)
    rows_MD = torch.empty_like(weighted_MD)
    rows_MD[order_M] = weighted_MD
    return rows_MD


def combine_rows(rows_MD: Tensor, row_of_pair_M: Tensor, num_rows: int) -> Tensor:
    """Add each row's pairs in float32, in the order given (ascending expert id): [N, D]."""
    sums_ND = torch.zeros((num_rows, rows_MD.shape[-1]), dtype=torch.float32, device=rows_MD.device)
    return sums_ND.index_add_(0, row_of_pair_M, rows_MD.float())


def _each_linear(rows_MD: Tensor, slots_M: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """rows @ weights[slot]^T, one GEMM for each expert in use; slots ascending."""
    used, counts = torch.unique_consecutive(slots_M, return_counts=True)
    groups = rows_MD.split(counts.tolist())
    outputs = [
        linear(rows, weights[slot]) for rows, slot in zip(groups, used.tolist(), strict=True)
    ]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _grouped_linear(rows_MD: Tensor, slots_M: Tensor, weights_EFD: Tensor) -> Tensor:
    """rows @ weights[slot]^T with float32 accumulation and a float32 result, slots ascending."""
    if weights_EFD.dtype == torch.float32:
        held = weights_EFD
        groups_M = slots_M
    else:
        # torch's grouped GEMM rounds its result to the inputs' dtype; widening only the
        # experts in use keeps the float32 accumulators until the defined rounding point.
        used, groups_M = torch.unique_consecutive(slots_M, return_inverse=True)
        held = weights_EFD[used].float()
    rows_MD = rows_MD.float()
    unaligned = -held.shape[2] % _GROUPED_MM_COLUMNS
    if unaligned:  # zeros add nothing to a product; a copy per call, for odd sizes only
        rows_MD, held = F.pad(rows_MD, (0, unaligned)), F.pad(held, (0, unaligned))
    counts_E = torch.bincount(groups_M, minlength=held.shape[0])
    ends_E = counts_E.cumsum(0).to(torch.int32)
    return F.grouped_mm(rows_MD, held.transpose(1, 2), offs=ends_E)
