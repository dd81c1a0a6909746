"""Which evicted blocks are in host memory, where, and which goes when it is full? No tensors.

The keys are the prefix cache's own, so what is found belongs to the same model, tenant and tokens.
A block that is read back stays here too, but is the first to go: the device has it. Evicted again,
it need not be copied if it is still here.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

Pays = Callable[[int, int], bool]
"""(blocks, positions in them) -> whether reading them back beats computing the positions."""


class HostBlocks:
    """Slots and keys, the least recently used going first; every operation is O(1) per key."""

    def __init__(self, num_slots: int, pays: Pays):
        if num_slots < 1:
            raise ValueError("host memory for KV blocks needs room for at least one")
        self.num_slots = num_slots
        self.pays = pays
        self.num_moved_out = 0
        self.num_read_back = 0
        self.num_saved_tokens = 0
        self.forget()

    @property
    def num_used(self) -> int:
        return len(self._keys_of)

    def find(self, key: bytes) -> int | None:
        """The slot with the block of this key."""
        return self._slot_of.get(key)

    def keep(self, keys: Sequence[bytes]) -> int | None:
        """Make room for an evicted block; the caller copies it to the slot.

        None when there is nothing to copy: it is here already, or every slot is held.
        """
        for slot in {self._slot_of[key] for key in keys if key in self._slot_of}:
            if slot in self._order:
                self._order.move_to_end(slot)
        new = [key for key in keys if key not in self._slot_of]
        if not new or not (self._free or self._order):
            return None
        slot = self._free.pop() if self._free else self._drop_oldest()
        self._order[slot] = None
        self._keys_of[slot] = new
        self._slot_of.update(dict.fromkeys(new, slot))
        self.num_moved_out += 1
        return slot

    @contextmanager
    def held(self, slots: Sequence[int]) -> Iterator[None]:
        """Within it these slots, in the order of their positions, are not given to other blocks.

        After it they are the first to go, those of later positions before those of earlier ones.
        """
        for slot in slots:
            del self._order[slot]
        try:
            yield
        finally:
            for slot in slots:
                self._order[slot] = None
                self._order.move_to_end(slot, last=False)

    def note_read_back(self, num_blocks: int, num_tokens: int) -> None:
        self.num_read_back += num_blocks
        self.num_saved_tokens += num_tokens

    def forget(self) -> None:
        self._free = list(range(self.num_slots - 1, -1, -1))
        self._order: OrderedDict[int, None] = OrderedDict()  # the first to go first
        self._slot_of: dict[bytes, int] = {}
        self._keys_of: dict[int, list[bytes]] = {}

    def _drop_oldest(self) -> int:
        slot, _ = self._order.popitem(last=False)
        for key in self._keys_of.pop(slot):
            del self._slot_of[key]
        return slot
