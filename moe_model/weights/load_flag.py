"""What does --load say: the weights in the folder, or weights from a seed? No torch."""

import math
import re
from dataclasses import dataclass

LOAD_HELP = (
    "random:SEED or random:SEED,skew=X: make weights up from a seed, where they are used, instead"
    " of reading them: the folder needs only config.json and the tokenizer; X >= 0 makes some"
    " experts hotter than others, 0 none (default: the folder's weights)"
)
MOST_SEED, MOST_SKEW = 2**63 - 1, 1000.0
_SPELLING = re.compile(r"random:([0-9]{1,19})(?:,skew=([0-9]+(?:\.[0-9]+)?))?", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Seeded:
    """Weights from a seed."""

    seed: int
    skew: float = 0.0
    """Standard deviation of the routing bias, in those of an expert's score."""

    def __str__(self) -> str:
        """As it is spelled in --load, in full."""
        return f"random:{self.seed},skew={self.skew!r}"


def parse_load(text: str) -> Seeded | None:
    """None: the folder's weights. Raises ValueError naming the flag."""
    if not text:
        return None
    found = _SPELLING.fullmatch(text)
    if found is None:
        raise ValueError(
            "--load takes random:SEED or random:SEED,skew=X, like random:7 or random:7,skew=1.5,"
            f" got {text[:60]!r}"
        )
    seed, skew = int(found[1]), float(found[2] or 0)
    if seed > MOST_SEED:
        raise ValueError(f"--load: the seed must be at most {MOST_SEED}, got {seed}")
    if not (math.isfinite(skew) and skew <= MOST_SKEW):
        raise ValueError(f"--load: skew must be at most {MOST_SKEW:g}, got {found[2][:60]}")
    return Seeded(seed=seed, skew=skew)
