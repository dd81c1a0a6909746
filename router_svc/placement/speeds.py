"""How fast is each pool, compared with the others?

Pools measure themselves at their start, on cores that may be busy with something else just
then: two like machines never measure the same. So what differs little from the median counts as
the median, and only what is clearly faster or slower gets another share of the load.
"""

import statistics
from collections.abc import Sequence

from router_svc.members.member import Offer

ALIKE = 1.25
"""Within this factor of the median a pool counts as one of the usual ones."""

SLOWEST = 1 / 8
"""What a pool counts as at least: a start on starved cores has been seen to measure a two-hundredth."""


def relative_speeds(offers: Sequence[Offer]) -> list[float]:
    """Of each pool, the median's being 1; of one that has not measured, what it says of itself."""
    known = [offer.experts_per_s for offer in offers if offer.experts_per_s]
    median = statistics.median_low(known) if known else 1.0
    return [
        _rounded(offer.experts_per_s / median) if offer.experts_per_s else offer.speed
        for offer in offers
    ]


def _rounded(ratio: float) -> float:
    return 1.0 if 1 / ALIKE <= ratio <= ALIKE else max(SLOWEST, ratio)
