"""How many rows are worth a hop to a thread? Rough counts of operations. No torch."""

from moe_model.config import ModelConfig

INLINE_FLOPS = 2e8
"""Work above about this many operations (some milliseconds) leaves the event loop for a thread."""


def inline_rows(row_flops: int) -> int:
    """Most rows that may be computed on the event loop itself; at least one."""
    return max(1, int(INLINE_FLOPS / row_flops))


def expert_row_flops(config: ModelConfig) -> int:
    """One row through its experts in one layer: 2 operations a weight."""
    return 2 * config.expert_params * config.top_k


def projection_row_flops(config: ModelConfig) -> int:
    """One row through a layer's attention projections."""
    return 2 * config.hidden_size * (2 * config.query_size + 2 * config.kv_size)


def lm_head_row_flops(config: ModelConfig) -> int:
    """One row's logits."""
    return 2 * config.vocab_size * config.hidden_size
