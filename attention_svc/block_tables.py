"""Which blocks does a sequence get: shared, copied or fresh? No tensors.

A sequence opens with blocks for all its known tokens. Full blocks that were computed
before, by anyone with the same prefix, are shared; of an identical prompt's last,
partly filled block the rows are copied, because both sequences go on writing into
theirs. The last known token is always computed: its logits choose the next one.

What a running sequence is about to compute is claimed, so that another one with the
same prefix can wait for it instead of computing it as well.
"""

from array import array
from dataclasses import dataclass
from itertools import islice

from attention_svc.block_pool import BlockPool
from attention_svc.prefix_keys import prompt_keys, root_key
from attention_svc.sequence import Sequence


@dataclass(frozen=True, slots=True)
class BlockCopy:
    """The first `num_rows` rows of a block, wanted at the start of another."""

    source: int
    target: int
    num_rows: int


class BlockTables:
    """Opens, grows and closes block tables; publishes what was computed."""

    def __init__(
        self,
        blocks: BlockPool,
        *,
        block_size: int,
        checkpoint_id: str = "",
        prefix_cache: bool = True,
    ):
        self.blocks = blocks
        self.block_size = block_size
        self._checkpoint_id = checkpoint_id
        self._prefix_cache = prefix_cache
        self._computing: dict[bytes, Sequence] = {}
        self._copies: list[BlockCopy] = []
        self.num_queried_tokens = 0
        self.num_hit_tokens = 0

    @property
    def capacity_tokens(self) -> int:
        return self.blocks.num_blocks * self.block_size

    def enter(self, sequence: Sequence) -> None:
        """Compute the keys of a new sequence's prompt; O(prompt), once."""
        if self._prefix_cache and not sequence.wants_every_row:
            root = root_key(self._checkpoint_id, sequence.cache_salt)
            sequence.keys = prompt_keys(root, sequence.prompt_ids, self.block_size)

    def awaits(self, sequence: Sequence) -> bool:
        """Whether a running sequence is computing what this waiting one would compute next."""
        keys = sequence.keys
        if keys is None:
            return False
        if sequence.awaited_key in self._computing:
            return True
        self._extend_keys(sequence, sequence.num_known // self.block_size)
        shared, source = self._match(sequence)
        limit = self._shareable(sequence)
        missing = list(islice(keys.blocks, len(shared), limit))
        if limit == keys.tail_block and keys.tail and source is None:
            missing.append(keys.tail)
        sequence.awaited_key = b""
        for key in missing:
            if key not in self._computing:
                break
            sequence.awaited_key = key  # the last one in a row: all before it come first
        return bool(sequence.awaited_key)

    def open(self, sequence: Sequence, *, spare: int) -> bool:
        """Blocks for all known tokens, `spare` left over; False (and nothing taken) without room."""
        self._extend_keys(sequence, sequence.num_known // self.block_size)
        shared, source = self._match(sequence)
        held = shared if source is None else [*shared, source]
        for block in held:
            self.blocks.share(block)
        fresh = self._take(self._blocks_for(sequence.num_known) - len(shared), spare)
        if fresh is None and source is not None:
            # Holding the source while room is made may be what takes the last block.
            self.blocks.release([source])
            held, source = shared, None
            fresh = self._take(self._blocks_for(sequence.num_known) - len(shared), spare)
        if fresh is None:
            self.blocks.release(held)
            return False
        sequence.block_table = array("q", shared + fresh)
        sequence.num_computed = len(shared) * self.block_size
        sequence.num_published = len(shared)
        if source is not None:
            assert sequence.keys is not None
            num_rows = sequence.keys.tail_rows
            self._copies.append(BlockCopy(source, fresh[0], num_rows))
            sequence.num_computed += num_rows
            # Copies are carried out first of all: who gets the source next cannot spoil it.
            self.blocks.release([source])
        self._claim(sequence)
        self._count_hit(sequence)
        return True

    def grow(self, sequence: Sequence) -> bool:
        """Blocks up to the last known token; False (and nothing taken) when they run out."""
        missing = self._blocks_for(sequence.num_known) - len(sequence.block_table)
        if missing > 0:
            taken = self.blocks.take(missing)
            if taken is None:
                return False
            sequence.block_table.extend(taken)
        return True

    def publish(self, sequence: Sequence) -> None:
        """Offer its full blocks to others: only what was computed and found to be finite."""
        keys = sequence.keys
        if keys is None:
            return
        num_full = sequence.num_computed // self.block_size
        if num_full > sequence.num_published:
            self._extend_keys(sequence, num_full)
            for index in range(sequence.num_published, num_full):
                self.blocks.publish(sequence.block_table[index], keys.blocks[index])
                self._unclaim(keys.blocks[index], sequence)
            sequence.num_published = num_full
        if sequence.claims_tail and sequence.num_computed >= keys.num_prompt:
            self.blocks.publish(sequence.block_table[keys.tail_block], keys.tail)
            self._unclaim(keys.tail, sequence)
            sequence.claims_tail = False

    def close(self, sequence: Sequence) -> None:
        """Give all blocks back; what was published stays in the cache."""
        if sequence.keys is not None:
            for key in islice(sequence.keys.blocks, sequence.num_published, None):
                self._unclaim(key, sequence)
            self._unclaim(sequence.keys.tail, sequence)
        sequence.claims_tail = False
        self.blocks.release(sequence.block_table)
        sequence.block_table = array("q")
        sequence.num_computed = sequence.num_published = 0

    def take_copies(self) -> list[BlockCopy]:
        """Copies to be carried out before the next step, in this order."""
        copies, self._copies = self._copies, []
        return copies

    def _match(self, sequence: Sequence) -> tuple[list[int], int | None]:
        """Blocks to share, and the block whose first rows are the prompt's tail."""
        keys = sequence.keys
        shared: list[int] = []
        if keys is None:
            return shared, None
        for key in islice(keys.blocks, self._shareable(sequence)):
            block = self.blocks.find(key)
            if block is None:
                break
            shared.append(block)
        if keys.tail and len(shared) == keys.tail_block:
            return shared, self.blocks.find(keys.tail)
        return shared, None

    def _shareable(self, sequence: Sequence) -> int:
        """Full blocks before the last known token."""
        return (sequence.num_known - 1) // self.block_size

    def _blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size)

    def _take(self, count: int, spare: int) -> list[int] | None:
        return self.blocks.take(count) if count + spare <= self.blocks.num_available else None

    def _extend_keys(self, sequence: Sequence, num_full: int) -> None:
        keys = sequence.keys
        if keys is not None and len(keys.blocks) < num_full:
            start = len(keys.blocks) * self.block_size
            keys.extend(sequence.known_slice(start, num_full * self.block_size - start))

    def _claim(self, sequence: Sequence) -> None:
        keys = sequence.keys
        if keys is None:
            return
        for key in islice(keys.blocks, sequence.num_published, None):
            self._computing.setdefault(key, sequence)
        if keys.tail and self.blocks.find(keys.tail) is None:
            sequence.claims_tail = True
            self._computing.setdefault(keys.tail, sequence)

    def _unclaim(self, key: bytes, sequence: Sequence) -> None:
        if self._computing.get(key) is sequence:
            del self._computing[key]

    def _count_hit(self, sequence: Sequence) -> None:
        if sequence.num_cached is None:  # not again when it comes back from preemption
            sequence.num_cached = min(sequence.num_computed, len(sequence.prompt_ids))
            if sequence.keys is not None:
                self.num_queried_tokens += len(sequence.prompt_ids)
                self.num_hit_tokens += sequence.num_cached
