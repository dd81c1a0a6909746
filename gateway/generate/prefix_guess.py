"""How much of a prompt does a replica probably have in its prefix cache?

We know which tokens went to it and came from it. Their blocks are remembered under chained
hashes, as in the attention service, and as many as its cache can hold; the least recently used are
dropped first. A wrong guess costs time, never a wrong token.
"""

from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence

BLOCK_TOKENS = 16
"""As the attention service's KV blocks."""
MAX_BLOCKS = 65_536
"""Of one replica: a million tokens, about 8 MiB of keys."""


def prompt_keys(cache_salt: str, token_ids: Iterable[int]) -> list[int]:
    """One key for each whole block, computed from everything up to its end.

    Python's own hash: it differs between processes, and a collision costs no more than a wrong
    guess.
    """
    data = array("I", token_ids).tobytes()
    size = BLOCK_TOKENS * array("I").itemsize
    key = hash(cache_salt)
    keys = []
    for end in range(size, len(data) + 1, size):
        key = hash((key, data[end - size : end]))
        keys.append(key)
    return keys


class PrefixGuess:
    """The blocks that one replica has seen lately."""

    def __init__(self) -> None:
        self._blocks: OrderedDict[int, None] = OrderedDict()
        self._capacity = MAX_BLOCKS

    def __len__(self) -> int:
        return len(self._blocks)

    def set_capacity(self, num_tokens: int) -> None:
        """What the replica's cache can hold; 0: not known."""
        blocks = num_tokens // BLOCK_TOKENS if num_tokens else MAX_BLOCKS
        self._capacity = min(MAX_BLOCKS, blocks)

    def num_tokens(self, keys: Sequence[int]) -> int:
        """Tokens of the longest known prefix."""
        known = next((i for i, key in enumerate(keys) if key not in self._blocks), len(keys))
        return known * BLOCK_TOKENS

    def remember(self, keys: Sequence[int]) -> None:
        """The replica has these blocks now, or will soon."""
        for key in reversed(keys[: self._capacity]):  # so that a prefix outlives what follows it
            self._blocks[key] = None
            self._blocks.move_to_end(key)
        while len(self._blocks) > self._capacity:
            self._blocks.popitem(last=False)

    def forget(self) -> None:
        """The replica is gone, and its cache with it."""
        self._blocks.clear()
