"""Attention over a part of the keys, and how parts become the whole.

A part gives its own softmax-weighted mean and the logarithm of its softmax
denominator (log-sum-exp); with these, parts of one row's keys, attended one by
one, add up to attention over all of them, whatever their sizes and order.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Part:
    """Attention of query rows over some of their keys. Leading dimensions as in the query."""

    mean: Tensor  # [..., P], query dtype or float32: softmax over the part's keys only
    lse: Tensor  # [...], float32: log of the sum of exp(score) over the part's keys


def attend_part(
    q_NGRP: Tensor,
    k_NSGP: Tensor,
    v_NSGP: Tensor,
    *,
    bias_NS: Tensor | None = None,
    is_causal: bool = False,
) -> Part:
    """Every query row of item n over the keys of item n.

    Args:
        q_NGRP: R rows for each key head, after QK-norm and RoPE.
        k_NSGP, v_NSGP: keys and values in the query's dtype; finite wherever the bias hides them.
        bias_NS: added to the scores, query dtype: 0, or -inf for keys that are not seen.
        is_causal: row r sees keys 0..r (aligned top-left; for a chunk's own square only).

    Scores, softmax and sums are float32. CPUs have a fused operator that also returns the
    log-sum-exp; elsewhere a matrix of scores exists, so callers cut long key ranges into tiles.
    """
    k_NGSP, v_NGSP = k_NSGP.transpose(1, 2), v_NSGP.transpose(1, 2)
    bias = None if bias_NS is None else bias_NS[:, None, None, :]
    if q_NGRP.device.type == "cpu":
        return Part(
            *torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                q_NGRP, k_NGSP, v_NGSP, 0.0, is_causal, attn_mask=bias
            )
        )
    return _attend_plainly(q_NGRP, k_NGSP, v_NGSP, bias, is_causal)


def merge(first: Part, second: Part) -> Part:
    """Attention over the keys of both parts; the mean becomes float32."""
    lse = torch.logaddexp(first.lse, second.lse)
    mean = first.mean * (first.lse - lse).exp_()[..., None]
    mean += second.mean * (second.lse - lse).exp_()[..., None]
    return Part(mean, lse)


def merge_by_row(parts: Part, rows_N: Tensor, num_rows: int) -> Tensor:
    """Means [num_rows, ..., P], float32: item n is a part of row rows_N[n]; every row has one."""
    shape = (num_rows, *parts.lse.shape[1:])
    index = rows_N.view(-1, *[1] * (parts.lse.dim() - 1)).expand_as(parts.lse)
    top = torch.full(shape, float("-inf"), device=parts.lse.device)
    top.scatter_reduce_(0, index, parts.lse, "amax")
    weight = (parts.lse - top[rows_N]).exp_()[..., None]
    total = torch.zeros((*shape, 1), device=weight.device).index_add_(0, rows_N, weight)
    mean = torch.zeros((*shape, parts.mean.shape[-1]), device=weight.device)
    return mean.index_add_(0, rows_N, parts.mean * weight).div_(total)


def _attend_plainly(
    q_NGRP: Tensor, k_NGSP: Tensor, v_NGSP: Tensor, bias: Tensor | None, is_causal: bool
) -> Part:
    """The same by matrix products, on any device."""
    scores = (q_NGRP @ k_NGSP.transpose(-1, -2)).float().mul_(1.0 / math.sqrt(q_NGRP.shape[-1]))
    if bias is not None:
        scores += bias
    if is_causal:
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu_(1)
        scores.masked_fill_(hidden, float("-inf"))
    weights = torch.softmax(scores, dim=-1).to(v_NGSP.dtype)
    return Part(weights @ v_NGSP, torch.logsumexp(scores, dim=-1))
