"""What of a sequence has been computed before, and where is it? No tensors."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from attention_svc.kv.block_pool import BlockPool
from attention_svc.kv.host_blocks import HostBlocks
from attention_svc.sequence.prefix_keys import PrefixKeys, child_key
from attention_svc.sequence.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Match:
    """The part of a sequence that has been computed before."""

    shared: list[int] = field(default_factory=list)
    """Full blocks, from the first."""
    slots: list[int] = field(default_factory=list)
    """Slots of host memory with the full blocks after them."""
    source: int | None = None
    """A block that begins with the next `num_rows` tokens."""
    source_slot: int | None = None
    """Or a slot that does."""
    num_rows: int = 0

    @property
    def blocks(self) -> list[int]:
        return self.shared if self.source is None else [*self.shared, self.source]

    @property
    def all_slots(self) -> list[int]:
        return self.slots if self.source_slot is None else [*self.slots, self.source_slot]

    def num_read_back(self, block_size: int) -> int:
        """Positions that come from host memory."""
        rows = 0 if self.source_slot is None else self.num_rows
        return len(self.slots) * block_size + rows


def find_match(
    sequence: Sequence, keys: PrefixKeys, blocks: BlockPool, host: HostBlocks | None
) -> Match:
    """What need not be computed: what is in the cache, and in host memory if that pays.

    Never the last known token. `keys` has all full blocks of known tokens.
    """
    match = _longest(sequence, keys, blocks, host)
    if host is None or not match.all_slots:
        return match
    if host.pays(len(match.all_slots), match.num_read_back(keys.block_size)):
        return match
    return _longest(sequence, keys, blocks, None)


def _longest(
    sequence: Sequence, keys: PrefixKeys, blocks: BlockPool, host: HostBlocks | None
) -> Match:
    """Full blocks from the first on, then the longest known beginning of the next."""
    block_size = keys.block_size
    full = keys.blocks[: (sequence.num_known - 1) // block_size]
    shared = list(_until_none(blocks.find, full))
    slots = list(_until_none(host.find, full[len(shared) :])) if host is not None else []
    num_full = len(shared) + len(slots)
    most = min(block_size, sequence.num_known - num_full * block_size) - 1
    token_ids = sequence.known_slice(num_full * block_size, most)
    for num_rows in range(most, 0, -1):
        key = child_key(keys.parent(num_full), token_ids[:num_rows])
        source = blocks.find(key)
        if source is not None:
            return Match(shared, slots, source, num_rows=num_rows)
        slot = host.find(key) if host is not None else None
        if slot is not None:
            return Match(shared, slots, source_slot=slot, num_rows=num_rows)
    return Match(shared, slots)


def _until_none(find: Callable[[bytes], int | None], keys: Iterable[bytes]) -> Iterator[int]:
    for key in keys:
        found = find(key)
        if found is None:
            return
        yield found
