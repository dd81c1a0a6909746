"""Which random number does a token get? f(seed, choice, output index), independent of history.

Preemption, batching and migration see the same numbers, on any device.
"""

from functools import lru_cache

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def _mix(value: int) -> int:
    """splitmix64's finaliser (Steele, Lea, Flood, 2014): a bijection that scatters all bits."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def uniform(seed: int, choice_idx: int, output_idx: int) -> float:
    """A number in [0, 1) with 53 random bits."""
    state = _mix((_start(seed, choice_idx) + (output_idx + 1) * _GOLDEN) & _MASK)
    return (state >> 11) / (1 << 53)


@lru_cache(maxsize=1024)
def _start(seed: int, choice_idx: int) -> int:
    """The same for all tokens of a sequence."""
    return _mix((_mix((seed + _GOLDEN) & _MASK) ^ choice_idx * _GOLDEN) & _MASK)
