"""Which experts serve a token, and with which weights? The gating matrix."""

import torch
from torch import Tensor

from minimax_m2.linear import LinearWeight, linear


def route(
    hidden_TD: Tensor, routing_ED: LinearWeight, bias_E: Tensor | None, top_k: int
) -> tuple[Tensor, Tensor]:
    """Choose `top_k` experts per token and their mixing weights, in float32.

    Scores are sigmoids. The bias takes part in choosing only; weights are the
    unbiased scores of the chosen experts divided by their sum. Equal scores go
    to the lower expert id.

    Args:
        hidden_TD: rows after the post-attention norm, any float dtype.
        routing_ED: float32 gating matrix.
        bias_E: float32 `e_score_correction_bias`, or None.

    Returns:
        topk_ids_TK: int32 expert ids (as they travel), ascending within a row.
        topk_weights_TK: float32, each row sums to 1.

    Source: checkpoint `block_sparse_moe.gate.weight`, `e_score_correction_bias`;
    Transformers MiniMaxM2TopKRouter.
    """
    # Not torch.sigmoid: on CPUs its last elements, which need not be the last row's, come from
    # other code than the rest, with other last bits.
    scores_TE = 1.0 / (1.0 + torch.exp(-linear(hidden_TD.float(), routing_ED)))
    choice_TE = scores_TE if bias_E is None else scores_TE + bias_E.float()
    # A stable sort, unlike topk, gives ties to the lower id on every device.
    order_TE = torch.sort(choice_TE, dim=-1, descending=True, stable=True).indices
    topk_ids_TK = order_TE[:, :top_k].sort(dim=-1).values
    weights_TK = scores_TE.gather(1, topk_ids_TK)
    return topk_ids_TK.int(), weights_TK / weights_TK.sum(dim=-1, keepdim=True)
