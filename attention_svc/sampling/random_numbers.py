"""Which random number does a token get? f(seed, choice, output index), independent of history.

Preemption, batching and migration see the same numbers, on any device.
"""

_MASK = (1 << 64) - 1


def _mix(value: int) -> int:
    """splitmix64's finaliser (Steele, Lea, Flood, 2014): a bijection that scatters all bits."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def uniform(seed: int, choice_idx: int, output_idx: int) -> float:
    """A number in [0, 1) with 53 random bits."""
    golden = 0x9E3779B97F4A7C15
    state = _mix((seed + golden) & _MASK)
    state = _mix((state ^ choice_idx * golden) & _MASK)
    state = _mix((state + (output_idx + 1) * golden) & _MASK)
    return (state >> 11) / (1 << 53)
