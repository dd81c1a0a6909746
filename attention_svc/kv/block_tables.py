"""Which blocks does a sequence get: shared, copied or fresh? No tensors.

A sequence opens with blocks for all its known tokens. Full blocks that a sequence with the same
prefix has computed are shared. Rows of a partly filled block, where a prompt or a sequence ended,
are copied, as both sequences go on writing into theirs. The last known token is always computed:
its logits choose the next one.

What a running sequence is about to compute is claimed, so that another one with the same prefix
can wait for it instead of computing it too.
"""

from array import array
from dataclasses import dataclass
from itertools import islice

from attention_svc.kv.block_pool import BlockPool
from attention_svc.sequence.prefix_keys import child_key, prompt_keys, root_key
from attention_svc.sequence.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Match:
    """The part of a sequence that has been computed before."""

    shared: list[int]
    """Full blocks, from the first."""
    source: int | None = None
    """A block that begins with the next `num_rows` tokens."""
    num_rows: int = 0


@dataclass(frozen=True, slots=True)
class BlockCopy:
    """Copy the first `num_rows` rows of a block to the start of another."""

    source: int
    target: int
    num_rows: int


class BlockTables:
    """Opens, grows and closes block tables; publishes computed blocks."""

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

    def awaited(self, sequence: Sequence) -> Sequence | None:
        """The running sequence that is computing what this waiting one would compute next."""
        keys = sequence.keys
        if keys is None:
            return None
        if sequence.awaited_key in self._computing:
            return self._computing[sequence.awaited_key]
        match = self._match(sequence)
        limit = self._shareable(sequence)
        missing = list(islice(keys.blocks, len(match.shared), limit))
        if limit == keys.tail_block and keys.tail and self.blocks.find(keys.tail) is None:
            missing.append(keys.tail)
        sequence.awaited_key = b""
        for key in missing:
            if key not in self._computing:
                break
            sequence.awaited_key = key  # the last one in a row: those before it are computed first
        return self._computing.get(sequence.awaited_key)

    def open(self, sequence: Sequence, *, spare: int) -> bool:
        """Take blocks for all known tokens, if `spare` stay available; else False, and none."""
        match = self._match(sequence)
        missing = -(-sequence.num_known // self.block_size) - len(match.shared)
        held = match.shared if match.source is None else [*match.shared, match.source]
        for block in held:
            self.blocks.share(block)
        fresh = self._take(missing, spare)
        if fresh is None and match.source is not None:
            # Holding the source may be what makes it one block too many: do without it.
            self.blocks.release([match.source])
            held, match = match.shared, Match(match.shared)
            fresh = self._take(missing, spare)
        if fresh is None:
            self.blocks.release(held)
            return False
        sequence.block_table = array("q", match.shared + fresh)
        sequence.num_computed = len(match.shared) * self.block_size + match.num_rows
        sequence.num_checked = sequence.num_computed
        if match.source is not None:
            self._copies.append(BlockCopy(match.source, fresh[0], match.num_rows))
            # Copies are made before anything is written: the source can be given away.
            self.blocks.release([match.source])
        self._claim(sequence)
        self._count_hit(sequence)
        return True

    def grow(self, sequence: Sequence) -> bool:
        """Take blocks up to the last known token; False, and none, when they run out."""
        missing = -(-sequence.num_known // self.block_size) - len(sequence.block_table)
        if missing > 0:
            taken = self.blocks.take(missing)
            if taken is None:
                return False
            sequence.block_table.extend(taken)
        return True

    def publish(self, sequence: Sequence) -> None:
        """Offer its full blocks to others; what was computed has been checked to be finite."""
        keys = sequence.keys
        if keys is None:
            return
        first, stop = (n // self.block_size for n in (sequence.num_checked, sequence.num_computed))
        sequence.num_checked = sequence.num_computed
        if first < stop:
            self._extend_keys(sequence, stop)
            for index in range(first, stop):
                self.blocks.publish(sequence.block_table[index], keys.blocks[index])
                self._unclaim(keys.blocks[index], sequence)
        if sequence.claims_tail and sequence.num_checked >= keys.num_prompt:
            self.blocks.publish(sequence.block_table[keys.tail_block], keys.tail)
            self._unclaim(keys.tail, sequence)
            sequence.claims_tail = False

    def close(self, sequence: Sequence) -> None:
        """Give all blocks back; published ones stay in the cache, and its last rows too."""
        keys = sequence.keys
        if keys is not None:
            num_full, num_rows = divmod(sequence.num_checked, self.block_size)
            for key in islice(keys.blocks, num_full, None):
                self._unclaim(key, sequence)
            self._unclaim(keys.tail, sequence)
            if num_rows:
                token_ids = sequence.known_slice(num_full * self.block_size, num_rows)
                key = child_key(keys.parent(num_full), token_ids)
                self.blocks.publish(sequence.block_table[num_full], key)
        sequence.claims_tail = False
        self.blocks.release(sequence.block_table)
        sequence.block_table = array("q")
        sequence.num_computed = sequence.num_checked = 0

    def take_copies(self) -> list[BlockCopy]:
        """Copies to make before the next step, in this order."""
        copies, self._copies = self._copies, []
        return copies

    def _match(self, sequence: Sequence) -> Match:
        """Full blocks from the first on, then the longest known beginning of the next."""
        keys = sequence.keys
        shared: list[int] = []
        if keys is None:
            return Match(shared)
        self._extend_keys(sequence, sequence.num_known // self.block_size)
        for key in islice(keys.blocks, self._shareable(sequence)):
            block = self.blocks.find(key)
            if block is None:
                break
            shared.append(block)
        start = len(shared) * self.block_size
        most = min(self.block_size, sequence.num_known - start) - 1
        token_ids = sequence.known_slice(start, most)
        for num_rows in range(most, 0, -1):
            source = self.blocks.find(child_key(keys.parent(len(shared)), token_ids[:num_rows]))
            if source is not None:
                return Match(shared, source, num_rows)
        return Match(shared)

    def _shareable(self, sequence: Sequence) -> int:
        """Full blocks before the last known token."""
        return (sequence.num_known - 1) // self.block_size

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
        for key in islice(keys.blocks, sequence.num_checked // self.block_size, None):
            self._computing.setdefault(key, sequence)
        if keys.tail and self.blocks.find(keys.tail) is None:
            sequence.claims_tail = True
            self._computing.setdefault(keys.tail, sequence)

    def _unclaim(self, key: bytes, sequence: Sequence) -> None:
        if self._computing.get(key) is sequence:
            del self._computing[key]

    def _count_hit(self, sequence: Sequence) -> None:
        if sequence.num_cached is None:  # not again after preemption
            sequence.num_cached = min(sequence.num_computed, len(sequence.prompt_ids))
            if sequence.keys is not None:
                self.num_queried_tokens += len(sequence.prompt_ids)
                self.num_hit_tokens += sequence.num_cached
