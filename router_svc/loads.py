"""How often does a step activate each piece?

A pool reads an activated expert's weights once per step, however many tokens chose
it, so load is the chance of being activated, not the number of tokens.
"""

from collections.abc import Sequence

PAIRS_PER_STEP = 64
"""(token, expert) pairs of a layer in one step: 8 sequences with top-8."""
PRIOR_TOKENS = 1000
"""Tokens every expert is credited with, so that a short record (after a restart, say) moves nothing."""


def activation_weights(tokens: Sequence[Sequence[int]]) -> list[list[float]]:
    """[layer][expert]: chance that a step activates it, from counts of routed tokens.

    The mean over a layer is 1 where all experts are equal; empty counts give equal weights.
    """
    return [_layer_weights(row) for row in tokens]


def _layer_weights(row: Sequence[int]) -> list[float]:
    total = sum(row) + PRIOR_TOKENS * len(row)
    chances = [1 - (1 - (count + PRIOR_TOKENS) / total) ** PAIRS_PER_STEP for count in row]
    equal = 1 - (1 - 1 / max(1, len(row))) ** PAIRS_PER_STEP if len(row) > 1 else 1.0
    return [chance / equal for chance in chances]
