"""When is each request sent? All at once, or at a rate with a given burstiness."""

import math
import random
from itertools import accumulate


def start_offsets_s(count: int, rate: float, burstiness: float, seed: int) -> list[float]:
    """When to send each request, in seconds after the start: ascending, the first at 0.

    Gaps are gamma distributed with mean 1 / rate and shape `burstiness`: 1 is a Poisson process,
    less comes in bursts, more is steadier. An infinite rate sends everything at once. The gaps
    are scaled so that the mean rate is exactly `rate`. Raises ValueError.
    """
    if not rate > 0:
        raise ValueError(f"--request-rate: more than 0, got {rate:g}")
    if not burstiness > 0 or math.isinf(burstiness):
        raise ValueError(f"--burstiness: more than 0, got {burstiness:g}")
    if math.isinf(rate) or count < 2:
        return [0.0] * count
    numbers = random.Random(seed)
    gaps = [numbers.gammavariate(burstiness, 1.0) for _ in range(count - 1)]
    offsets = [0.0, *accumulate(gaps)]
    scale = (count - 1) / rate / offsets[-1]
    return [offset * scale for offset in offsets]
