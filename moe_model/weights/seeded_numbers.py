"""Which numbers come of a seed? The same on every device: hashed integers choose from a table.

Counters are hashed with a tensor's key to 32 bits, in int64 products that never overflow. Each byte
of a hash chooses one of 256 values, which are equally likely. The table is made on the CPU, so that
no device rounds anything. torch.Generator would give other numbers on a GPU than on a CPU.
"""

import hashlib
import math
from collections.abc import Sequence
from functools import cache
from statistics import NormalDist

import torch
from torch import Tensor

GENERATOR = 1
"""Another number wherever the weights of a seed change."""
LEVELS = 256
_WORDS = 1 << 20
"""Hashed at once: bounds the memory that drawing takes. Part of the generator."""
_LOW = (1 << 32) - 1
_MULTIPLIERS = (0x7FEB352D, 0x4C1B51AD)
"""Odd and under 2^31, so that the product with 32 bits fits into an int64."""


@cache
def normal_levels() -> tuple[float, ...]:
    """LEVELS equally likely values of a normal distribution; mean 0, mean square 1."""
    upper = [NormalDist().inv_cdf((level + 0.5) / LEVELS) for level in range(LEVELS // 2, LEVELS)]
    unit = math.sqrt(math.fsum(value * value for value in upper) / len(upper))
    return tuple([-value / unit for value in reversed(upper)] + [value / unit for value in upper])


def draw(key: str, shape: Sequence[int], levels: Tensor, device: torch.device | str) -> Tensor:
    """A tensor of `shape`, each element one of `levels` [LEVELS]. Equal keys: equal choices."""
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    first, second = int.from_bytes(digest[:4], "big"), int.from_bytes(digest[4:], "big")
    levels = levels.to(device)
    size = math.prod(shape)
    drawn = torch.empty(size, dtype=levels.dtype, device=device)
    for start in range(0, size, 4 * _WORDS):
        part = drawn[start : start + 4 * _WORDS]
        num_words = -(-len(part) // 4)
        words = torch.arange(start // 4, start // 4 + num_words, device=device)
        words = _mix(_mix(words.bitwise_xor_(first)).bitwise_xor_(second))
        for lane in range(4):
            here = part[lane * num_words : (lane + 1) * num_words]
            chosen = (words[: len(here)] >> 8 * lane).bitwise_and_(LEVELS - 1)
            torch.index_select(levels, 0, chosen, out=here)
    return drawn.view(*shape)


def _mix(words: Tensor) -> Tensor:
    """Scramble 32-bit numbers in int64, in place; no two become the same."""
    for multiplier in _MULTIPLIERS:
        words.bitwise_xor_(words >> 16)
        words.mul_(multiplier).bitwise_and_(_LOW)
    return words.bitwise_xor_(words >> 15)
