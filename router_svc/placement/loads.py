"""How heavy is each piece, compared with the others?

A pool reads an activated expert's weights once per step, however many tokens chose
it, so load is work as `activations` counts it, not tokens.
"""

from collections.abc import Sequence

PRIOR_WORK = 100.0
"""Work that every piece starts with. A count of n is off by about its root, so n / (n + 100) is
never off by more than 5 %: a short record moves nothing."""


def mean_work(work: Sequence[Sequence[float]]) -> float:
    """The mean work of a piece; 0 without any."""
    return sum(map(sum, work)) / max(1, sum(map(len, work)))


def piece_weights(work: Sequence[Sequence[float]]) -> list[list[float]]:
    """[layer][expert]: recent work over the mean piece's; 1 where all are equal."""
    total = mean_work(work) + PRIOR_WORK
    return [[(done + PRIOR_WORK) / total for done in row] for row in work]
