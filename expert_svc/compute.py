"""One call's computation: all its rows through all its experts, fused."""

import torch
from torch import Tensor

from expert_svc.calls import Call
from expert_svc.weight_store import WeightStore


class NotHolding(Exception):
    """The call names a piece that this pool does not hold, or no longer holds."""

    def __init__(self, layer_idx: int, expert_id: int):
        super().__init__(f"layer {layer_idx} expert {expert_id} is not held here")
        self.layer_idx = layer_idx
        self.expert_id = expert_id


@torch.inference_mode()
def run_call(call: Call, store: WeightStore) -> Tensor:
    """The call's answer: float32 [N, D] sums, or [M, D] rows with combine = ROWS.

    On the CPU; the next call may write into the same memory.

    Raises:
        NotHolding: naming the first piece that is not held.
        ValueError: a row or a weight is NaN or infinite.
    """
    rows = call.unpack(store.calls.room)
    held = store.layer(call.layer_idx)
    if held is None:
        raise NotHolding(call.layer_idx, int(rows.expert_ids_M[0]))
    # Few operators, since the caller waits: see docs/cold-caches.md.
    ids_M = rows.expert_ids_M.numpy()
    slots_M = held.slots_E[ids_M]
    if slots_M.min() < 0:
        raise NotHolding(call.layer_idx, int(ids_M[slots_M < 0][0]))
    return store.calls.run(held.weights, rows, slots_M, per_pair=call.per_pair)


def suspects(call: Call, answer: Tensor) -> list[tuple[int, int]]:
    """The pieces that contributed to the answer's rows with NaN or infinity."""
    rows = call.unpack(None)
    bad = ~torch.isfinite(answer).all(dim=1)
    bad_M = bad if call.per_pair else bad[rows.row_of_pair_M]
    return [(call.layer_idx, int(expert_id)) for expert_id in rows.expert_ids_M[bad_M].unique()]
