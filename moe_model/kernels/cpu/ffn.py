"""The grouped expert FFN in one native call: moe_model/maths/experts.py on packed experts.

Same rounding points as there, exactly (w1, w3 and w2 accumulate in float32).
"""

import torch
from torch import Tensor

from moe_model.kernels.cpu.formats import weight_format
from moe_model.kernels.cpu.library import need
from moe_model.kernels.cpu.packed import PackedMatrix, separate, unpack
from moe_model.kernels.cpu.rows import check, check_contiguous


class KernelExperts:
    """Packed experts of one layer; slots in ascending expert id, as sums add in that order."""

    def __init__(self, num_held: int, hidden_size: int, expert_size: int, format: str = "bf16"):
        """Raises ValueError naming the size or the format that cannot be."""
        for name, size in (("hidden_size", hidden_size), ("expert_size", expert_size)):
            if size < 1:
                raise ValueError(f"{name} must be at least 1, not {size}")
        if num_held < 0:
            raise ValueError(f"num_held must be at least 0, not {num_held}")
        self.hidden_size = hidden_size
        self.expert_size = expert_size
        self.format = format
        self.weights = weight_format(format)
        self.num_slots = num_held
        self._held: list[tuple[PackedMatrix, PackedMatrix] | None] = [None] * num_held
        # Addresses for the kernel, gate_up's and down's; 0: nothing in this slot.
        self._gate_up_E = torch.zeros(num_held, dtype=torch.int64)
        self._down_E = torch.zeros(num_held, dtype=torch.int64)
        self.tables = (self._gate_up_E.data_ptr(), self._down_E.data_ptr())
        """Where those addresses lie."""

    def put_packed(self, slot: int, gate_up: PackedMatrix, down: PackedMatrix) -> None:
        """Take matrices as they are; `gate_up` with alternating panels (`separate`).

        Raises:
            ValueError: another format or shape, or no such slot.
        """
        self._check(slot)
        whole = 2 * (-(-self.expert_size // 32) * 32)
        for name, matrix, shape in (
            ("gate_up", gate_up, (whole, self.hidden_size)),
            ("down", down, (self.hidden_size, self.expert_size)),
        ):
            found = (matrix.num_outputs, matrix.num_inputs)
            if matrix.format != self.format or found != shape:
                raise ValueError(
                    f"{name} must be {self.format} {shape}, not {matrix.format} {found}"
                )
        self._held[slot] = (gate_up, down)
        self._gate_up_E[slot] = gate_up.address
        self._down_E[slot] = down.address

    def get_packed(self, slot: int) -> tuple[PackedMatrix, PackedMatrix]:
        """As `put_packed` takes them. Raises ValueError for a slot that holds none."""
        self._check(slot)
        held = self._held[slot]
        if held is None:
            raise ValueError(f"slot {slot} holds no expert")
        return held

    def unpacked(self, slot: int) -> tuple[Tensor, Tensor]:
        """float32 w13_HD and w2_DF: the numbers the kernel multiplies with."""
        gate_up, down = self.get_packed(slot)
        return torch.cat(separate(unpack(gate_up), self.expert_size)), unpack(down)

    def _check(self, slot: int) -> None:
        if not 0 <= slot < len(self._held):
            raise ValueError(f"slot must be 0 to {len(self._held) - 1}, not {slot}")


def expert_rows(
    hidden_ND: Tensor,
    row_of_pair_M: Tensor,
    slots_M: Tensor,
    weights_M: Tensor,
    held: KernelExperts,
) -> Tensor:
    """One weighted bfloat16 output row per (row, expert) pair, in the order of the pairs.

    Args as `moe_model.maths.experts.HeldExperts.rows`, hidden_ND in bfloat16.

    Raises:
        ValueError: shapes or dtypes that do not fit, a row or a slot that is not there.
    """
    return _run(hidden_ND, row_of_pair_M, slots_M, weights_M, held, sum_rows=False)


def expert_sums(
    hidden_ND: Tensor,
    row_of_pair_M: Tensor,
    slots_M: Tensor,
    weights_M: Tensor,
    held: KernelExperts,
) -> Tensor:
    """Each row's pairs added in float32 in ascending slot: float32 [N, D].

    The same bits as `combine_rows` of `expert_rows` gives for pairs ascending within a row.
    """
    return _run(hidden_ND, row_of_pair_M, slots_M, weights_M, held, sum_rows=True)


def routed_sums(
    dispatch_TD: Tensor,
    topk_ids_TK: Tensor,
    topk_weights_TK: Tensor,
    held: KernelExperts,
    out_TD: Tensor,
) -> None:
    """`expert_sums` of what routing gives (int32 ids: the slots), written to float32 `out_TD`.

    Raises:
        ValueError: shapes or dtypes that do not fit, an id that is not held.
    """
    num_rows, top_k = topk_ids_TK.shape
    wide = (num_rows, held.hidden_size)
    for name, tensor, dtype, shape in (
        ("dispatch_TD", dispatch_TD, torch.bfloat16, wide),
        ("topk_ids_TK", topk_ids_TK, torch.int32, (num_rows, top_k)),
        ("topk_weights_TK", topk_weights_TK, torch.float32, (num_rows, top_k)),
        ("out_TD", out_TD, torch.float32, wide),
    ):
        check_contiguous(name, tensor, dtype, shape)
    need().native.routed_ffn(
        held.weights.id,
        dispatch_TD.data_ptr(),
        num_rows,
        held.hidden_size,
        held.expert_size,
        top_k,
        held.num_slots,
        topk_ids_TK.data_ptr(),
        topk_weights_TK.data_ptr(),
        *held.tables,
        out_TD.data_ptr(),
    )


def _run(
    hidden_ND: Tensor,
    row_of_pair_M: Tensor,
    slots_M: Tensor,
    weights_M: Tensor,
    held: KernelExperts,
    *,
    sum_rows: bool,
) -> Tensor:
    # The usual case asks tensors for as little as it can: see docs/cold-caches.md.
    hidden_shape = hidden_ND.shape
    if len(hidden_shape) != 2 or hidden_shape[1] != held.hidden_size:
        raise ValueError(f"hidden must be [N, {held.hidden_size}], not {list(hidden_shape)}")
    pair_shape = (slots_M.numel(),)
    for name, tensor, dtype, shape in (
        ("hidden_ND", hidden_ND, torch.bfloat16, hidden_shape),
        ("row_of_pair_M", row_of_pair_M, torch.int64, pair_shape),
        ("slots_M", slots_M, torch.int64, pair_shape),
        ("weights_M", weights_M, torch.float32, pair_shape),
    ):
        check(name, tensor, dtype, shape)
    hidden_ND, row_of_pair_M = hidden_ND.contiguous(), row_of_pair_M.contiguous()
    slots_M, weights_M = slots_M.contiguous(), weights_M.contiguous()
    num_rows, hidden_size = hidden_shape
    num_pairs = pair_shape[0]
    if sum_rows:
        out = torch.empty((num_rows, hidden_size), dtype=torch.float32)
    else:
        out = torch.empty((num_pairs, hidden_size), dtype=torch.bfloat16)
    format_id = held.weights.id
    need().native.expert_ffn(
        format_id,
        format_id,
        hidden_ND.data_ptr(),
        num_rows,
        hidden_size,
        held.expert_size,
        num_pairs,
        held.num_slots,
        row_of_pair_M.data_ptr(),
        slots_M.data_ptr(),
        weights_M.data_ptr(),
        *held.tables,
        int(sum_rows),
        out.data_ptr(),
    )
    return out
