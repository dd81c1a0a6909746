"""How fast could the slice decode and prefill at most, and how near do we and a peer come?

A step reads the linears, the LM head and the experts that its rows are expected to hit, each once,
and makes two operations for each weight of a row. The roofline is the longer of: those bytes at the
rate of the same threads when they only read; those operations at the rate of torch's best bfloat16
GEMM, twice that for int8 and int4 (whose instructions do twice as much). Reads of keys and values
and attention's own operations, about 1 % here, are not counted.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from moe_model.config import ModelConfig
from moe_model.cost import expert_row_flops, lm_head_row_flops, projection_row_flops
from moe_model.formats import attention_bytes, piece_bytes

Cell = tuple[str, int]
"""("decode", sequences) or ("prefill", prompt tokens)."""
Load = Sequence[Sequence[int]]
"""Rows that were routed to each expert, by layer."""

TIMES_PEER = 1.3
OF_ROOFLINE = 0.8
"""The goal is the lower of the two, where GOALS has the cell."""
LEVEL = 0.97
"""The goal of decoding one sequence, as a share of the peer's rate."""
GOALS: tuple[Cell, ...] = (("decode", 8), ("decode", 16), ("decode", 32), ("prefill", 256))


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What this machine did at one moment, with as many threads as the engine."""

    read_gbps: float
    gemm_gflops: float


def distinct_experts(load: Load, rows: int, top_k: int) -> float:
    """How many different experts `rows` rows are expected to hit, over all layers."""
    total = 0.0
    for counts in load:
        drawn = sum(counts) / top_k
        total += sum(1 - max(0.0, 1 - count / drawn) ** rows for count in counts)
    return total


def step_bytes(config: ModelConfig, weight_format: str, load: Load, rows: int) -> float:
    """Bytes of weights in `weight_format` that a step with `rows` rows must read."""
    embedding = 2 * config.vocab_size * config.hidden_size  # a few rows of it only
    rest = attention_bytes(config, "bf16", weight_format) - embedding
    distinct = distinct_experts(load, rows, config.top_k)
    return rest + distinct * piece_bytes(config, weight_format)


def step_flops(config: ModelConfig, rows: int, logit_rows: int) -> float:
    """Two for each weight of a row; only `logit_rows` go through the LM head."""
    layer = expert_row_flops(config) + projection_row_flops(config)
    return float(rows * config.num_layers * layer + logit_rows * lm_head_row_flops(config))


def roofline(
    config: ModelConfig, weight_format: str, load: Load, cell: Cell, rates: Rates
) -> tuple[float, str]:
    """Most tokens per second, and the limit: "read" or "arithmetic"."""
    kind, rows = cell
    size = step_bytes(config, weight_format, load, rows)
    flops = step_flops(config, rows, rows if kind == "decode" else 1)
    peak_gflops = rates.gemm_gflops * (2 if weight_format.startswith("int") else 1)
    read_s, arithmetic_s = size / rates.read_gbps / 1e9, flops / peak_gflops / 1e9
    binds = "read" if read_s >= arithmetic_s else "arithmetic"
    return rows / max(read_s, arithmetic_s), binds


def compare(
    config: ModelConfig,
    weight_format: str,
    load: Load,
    cell: Cell,
    ours: Sequence[float],
    beside: Sequence[Rates],
    peer: Sequence[float],
) -> dict[str, Any]:
    """One cell of the last line: medians over the rounds, and the goal if there is one.

    `beside`: the machine at the time of each of `ours`, as the host's pace may change.
    `of_goal`: 1 or more when it is reached.
    """
    limits = [roofline(config, weight_format, load, cell, rates) for rates in beside]
    fraction = statistics.median(
        rate / limit for rate, (limit, _) in zip(ours, limits, strict=True)
    )
    limit = statistics.median(limit for limit, _ in limits)
    found: dict[str, Any] = {
        "tokens_per_s": statistics.median(ours),
        "range": [min(ours), max(ours)],
        "roofline_tokens_per_s": limit,
        "binds": limits[0][1],
        "of_roofline": fraction,
    }
    if peer:
        ratio = statistics.median(ours) / statistics.median(peer)
        found |= {
            "peer_tokens_per_s": statistics.median(peer),
            "peer_range": [min(peer), max(peer)],
            "ratio": ratio,
        }
        if cell == ("decode", 1):
            found |= {"goal": f"{LEVEL} x peer", "of_goal": ratio / LEVEL}
        elif cell in GOALS:
            # The lower of two is reached when either is.
            found |= {
                "goal": f"the lower of {TIMES_PEER} x peer and {OF_ROOFLINE} x roofline",
                "of_goal": max(ratio / TIMES_PEER, fraction / OF_ROOFLINE),
            }
    return {key: _rounded(value) for key, value in found.items()}


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    return round(value, 3) if isinstance(value, float) else value
