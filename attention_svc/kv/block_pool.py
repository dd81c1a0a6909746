"""Which KV blocks are in use, by how many sequences, and which are kept for reuse? No tensors.

A block is *free* (holds nothing useful), *used* (referenced by one or more block tables) or
*cached*: referenced by none, but found under its keys until it is taken for something else, the
least recently used one first.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence

Evicted = Callable[[int, list[bytes]], None]
"""Called with a cached block that is about to be taken, and its keys."""


def _forgotten(block: int, keys: list[bytes]) -> None:
    pass


class BlockPool:
    """References, keys and the order of reuse; every operation is O(1) per block."""

    def __init__(self, num_blocks: int):
        if num_blocks < 1:
            raise ValueError("the KV cache needs at least one block")
        self.num_blocks = num_blocks
        self._free = list(range(num_blocks - 1, -1, -1))
        self._cached: OrderedDict[int, None] = OrderedDict()  # least recently used first
        self._references = [0] * num_blocks
        self._block_of: dict[bytes, int] = {}
        self._keys_of: dict[int, list[bytes]] = {}

    @property
    def num_available(self) -> int:
        """What `take` can hand out."""
        return len(self._free) + len(self._cached)

    @property
    def num_used(self) -> int:
        return self.num_blocks - self.num_available

    def take(self, count: int, evicted: Evicted = _forgotten) -> list[int] | None:
        """`count` blocks with one reference each, or None when fewer are available."""
        if count > self.num_available:
            return None
        taken = [self._free.pop() if self._free else self._evict(evicted) for _ in range(count)]
        for block in taken:
            self._references[block] = 1
        return taken

    def share(self, block: int) -> None:
        """One more reference to a used or cached block."""
        assert self._references[block] or block in self._cached, "a free block was shared"
        self._cached.pop(block, None)
        self._references[block] += 1

    def release(self, table: Sequence[int]) -> None:
        """Drop one reference to each block of a table.

        From its end: a later block is useless without the earlier ones, so it is reused first.
        """
        for block in reversed(table):
            assert self._references[block] > 0, "a block was freed twice"
            self._references[block] -= 1
            if self._references[block]:
                continue
            if block in self._keys_of:
                self._cached[block] = None
            else:
                self._free.append(block)

    def publish(self, block: int, key: bytes) -> None:
        """Let `find` return this used block for `key`, unless there is one already."""
        assert self._references[block] > 0, "a block that nobody uses was published"
        if key not in self._block_of:
            self._block_of[key] = block
            self._keys_of.setdefault(block, []).append(key)

    def find(self, key: bytes) -> int | None:
        return self._block_of.get(key)

    def forget(self) -> bool:
        """Free all cached blocks; False, and nothing, while any block is in use."""
        if self.num_used:
            return False
        while self._cached:
            self._free.append(self._evict(_forgotten))
        return True

    def _evict(self, evicted: Evicted) -> int:
        block, _ = self._cached.popitem(last=False)
        keys = self._keys_of.pop(block)
        for key in keys:
            del self._block_of[key]
        evicted(block, keys)
        return block
