"""One call's computation: all its rows through all its experts, fused."""

import torch
from torch import Tensor

from expert_svc.calls import Call
from expert_svc.weight_store import WeightStore


class NotHolding(Exception):
    """The call names a piece this pool does not hold (any more)."""

    def __init__(self, layer_idx: int, expert_id: int):
        super().__init__(f"layer {layer_idx} expert {expert_id} is not held here")
        self.layer_idx = layer_idx
        self.expert_id = expert_id


@torch.inference_mode()
def run_call(call: Call, store: WeightStore) -> Tensor:
    """The call's answer: float32 [N, D] sums, or [M, D] rows with combine = ROWS.

    Raises:
        NotHolding: naming the first piece that is not held.
        ValueError: a row or a weight is NaN or infinite.
    """
    rows = call.unpack()
    held = store.layer(call.layer_idx)
    if held is None:
        raise NotHolding(call.layer_idx, int(rows.expert_ids_M[0]))
    # Few operators, since the caller waits: see docs/cold-caches.md.
    ids_M = rows.expert_ids_M.numpy()
    slots_M = held.slots_E[ids_M]
    if slots_M.min() < 0:
        raise NotHolding(call.layer_idx, int(ids_M[slots_M < 0][0]))
    hidden_ND, row_of_pair_M, weights_M = rows.hidden_ND, rows.row_of_pair_M, rows.weights_M
    slots = torch.from_numpy(slots_M)
    device = store.device
    if device.type != "cpu" or hidden_ND.dtype is not store.dtype:
        hidden_ND = hidden_ND.to(device, store.dtype)
        row_of_pair_M, slots = row_of_pair_M.to(device), slots.to(device)
        weights_M = weights_M.to(device)
    compute = held.weights.rows if call.per_pair else held.weights.sums
    answer = compute(hidden_ND, row_of_pair_M, slots, weights_M)
    return answer if answer.is_cpu else answer.cpu()


def suspects(call: Call, answer: Tensor) -> list[tuple[int, int]]:
    """The pieces that had a part in the answer's rows of NaN or infinity."""
    rows = call.unpack()
    bad = ~torch.isfinite(answer).all(dim=1)
    bad_M = bad if call.per_pair else bad[rows.row_of_pair_M]
    return [(call.layer_idx, int(expert_id)) for expert_id in rows.expert_ids_M[bad_M].unique()]
