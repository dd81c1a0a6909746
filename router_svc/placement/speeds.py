"""How fast is each pool, compared with the others?

Pools measure themselves at their start, on cores that may be busy with something else, so
equal machines never measure the same. A pool close to the median therefore counts as the median;
only one that is clearly faster or slower gets a different share of the load.
"""

import statistics
from collections.abc import Sequence

from router_svc.members.member import Offer

ALIKE = 1.25
"""Within this factor of the median, a pool counts as the median."""

SLOWEST = 1 / 8
"""The least that a pool counts as: on starved cores one has measured a two-hundredth."""


def relative_speeds(offers: Sequence[Offer]) -> list[float]:
    """Each pool's speed over the median's; for one that has not measured, the speed it gives."""
    known = [offer.experts_per_s for offer in offers if offer.experts_per_s]
    median = statistics.median_low(known) if known else 1.0
    return [
        _rounded(offer.experts_per_s / median) if offer.experts_per_s else offer.speed
        for offer in offers
    ]


def _rounded(ratio: float) -> float:
    return 1.0 if 1 / ALIKE <= ratio <= ALIKE else max(SLOWEST, ratio)
