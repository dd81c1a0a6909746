"""Which experts serve a token, and with which weights? The gating matrix."""

from torch import Tensor

from moe_model.maths.linear import LinearWeight, linear
from moe_model.maths.row_maths import TORCH, RowMaths


def route(
    hidden_TD: Tensor,
    routing_ED: LinearWeight,
    bias_E: Tensor | None,
    top_k: int,
    maths: RowMaths = TORCH,
) -> tuple[Tensor, Tensor]:
    """Choose `top_k` experts per token and their mixing weights, in float32.

    Scores are sigmoids. The bias takes part in choosing only; weights are the
    unbiased scores of the chosen experts divided by their sum. Equal scores go
    to the lower expert id.

    Args:
        hidden_TD: rows after the post-attention norm, any float dtype.
        routing_ED: float32 gating matrix.
        bias_E: float32, of models with `ModelConfig.use_routing_bias`; else None.

    Returns:
        topk_ids_TK: int32 expert ids (as they travel), ascending within a row.
        topk_weights_TK: float32, each row sums to 1.

    Source: Transformers MiniMaxM2TopKRouter; the tensors `routing` and `bias` of a family's
    names (`moe_model/families/`).
    """
    return maths.choose_experts(linear(hidden_TD.float(), routing_ED), bias_E, top_k)
