"""Causal grouped-query attention of query rows over given keys and values: the definition.

Serving attends to pages, part by part: `attention_parts.py`, moe_model/maths/paged_attention.py.
"""

import math

import torch
from torch import Tensor

QUERY_TILE_SCORES = 1 << 24
"""Most score elements held at once: bounds memory for long chunks over long contexts."""


def attend(q_THP: Tensor, k_SGP: Tensor, v_SGP: Tensor, positions_T: Tensor) -> Tensor:
    """Attention of one sequence's rows: row t sees cached positions 0..positions_T[t].

    Args:
        q_THP: query rows after QK-norm and RoPE.
        k_SGP, v_SGP: keys and values of positions 0..S-1, in order.
        positions_T: int64, absolute position of each query row; all below S.

    Returns:
        output_TA: [T, H*P] in q's dtype. Scores, softmax and sums are float32.

    Source: softmax(q k / sqrt(P)) v with H / G query heads per key head.
    """
    num_rows, num_heads, head_dim = q_THP.shape
    num_cached, num_groups, _ = k_SGP.shape
    heads_per_group = num_heads // num_groups
    q_GTRP = q_THP.float().view(num_rows, num_groups, heads_per_group, head_dim).transpose(0, 1)
    k_GPS = k_SGP.float().permute(1, 2, 0)
    v_GSP = v_SGP.float().transpose(0, 1)
    cached_S = torch.arange(num_cached, device=q_THP.device)
    scale = 1.0 / math.sqrt(head_dim)
    output = torch.empty(
        (num_rows, num_groups, heads_per_group, head_dim), dtype=torch.float32, device=q_THP.device
    )
    tile = max(1, QUERY_TILE_SCORES // (num_heads * num_cached))
    for start in range(0, num_rows, tile):
        rows = slice(start, start + tile)
        q_tile = q_GTRP[:, rows].reshape(num_groups, -1, head_dim)
        scores = torch.bmm(q_tile, k_GPS).mul_(scale)
        scores = scores.view(num_groups, -1, heads_per_group, num_cached)
        hidden = cached_S[None, :] > positions_T[rows, None]
        scores.masked_fill_(hidden[None, :, None, :], float("-inf"))
        weights = torch.softmax(scores, dim=-1).view(num_groups, -1, num_cached)
        mixed = torch.bmm(weights, v_GSP).view(num_groups, -1, heads_per_group, head_dim)
        output[rows] = mixed.transpose(0, 1)
    return output.view(num_rows, num_heads * head_dim).to(q_THP.dtype)
