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
    slots_M = held.slots_E[rows.expert_ids_M]
    if bool((slots_M < 0).any()):
        missing = rows.expert_ids_M[slots_M < 0]
        raise NotHolding(call.layer_idx, int(missing[0]))
    device = store.device
    arguments = (
        rows.hidden_ND.to(device, store.dtype),
        rows.row_of_pair_M.to(device),
        slots_M.to(device),
        rows.weights_M.to(device),
    )
    answer = held.weights.rows(*arguments) if call.per_pair else held.weights.sums(*arguments)
    return answer.cpu()
