"""Which blocks does a sequence get: shared, read back, copied or fresh? No tensors.

A sequence opens with blocks for all its known tokens. Full blocks that a sequence with the same
prefix has computed are shared; those after them that were evicted to host memory are read back
where that is cheaper than computing them. Rows of a partly filled block, where a prompt or a
sequence ended, are copied, as both sequences go on writing into theirs. The last known token is
always computed: its logits choose the next one.

What a running sequence is about to compute or to read back is claimed, so that another one with the
same prefix can wait for it instead of doing it too.
"""

from array import array
from itertools import islice

from attention_svc.kv.block_pool import BlockPool
from attention_svc.kv.host_blocks import HostBlocks
from attention_svc.kv.match import Match, find_match
from attention_svc.kv.moves import BlockCopy, Move, MoveOut, ReadBack
from attention_svc.sequence.prefix_keys import child_key, prompt_keys, root_key
from attention_svc.sequence.sequence import Sequence


class BlockTables:
    """Opens, grows and closes block tables; publishes computed blocks."""

    def __init__(
        self,
        blocks: BlockPool,
        *,
        block_size: int,
        checkpoint_id: str = "",
        prefix_cache: bool = True,
        host: HostBlocks | None = None,
    ):
        """`host`: where evicted blocks are kept; None: nowhere."""
        self.blocks = blocks
        self.block_size = block_size
        self._checkpoint_id = checkpoint_id
        self._prefix_cache = prefix_cache
        self._computing: dict[bytes, Sequence] = {}
        self.host = host
        self._moves: list[Move] = []
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
        for block in match.blocks:
            self.blocks.share(block)
        fresh = self._take(missing, spare, match)
        if fresh is None and match.source is not None:
            # Holding the source may be what makes it one block too many: do without it.
            self.blocks.release([match.source])
            match = Match(match.shared, match.slots)
            fresh = self._take(missing, spare, match)
        if fresh is None:
            self.blocks.release(match.blocks)
            return False
        sequence.block_table = array("q", match.shared + fresh)
        # What is yet to be copied is published when a step has run after it.
        sequence.num_checked = len(match.shared) * self.block_size
        sequence.num_computed = (
            sequence.num_checked + len(match.slots) * self.block_size + match.num_rows
        )
        self._fill(fresh, match)
        self._claim(sequence)
        self._count_hit(sequence)
        return True

    def grow(self, sequence: Sequence, *, ahead: int = 0) -> bool:
        """Take blocks up to the last known token, or so many tokens after it; False, and none,
        when they run out.
        """
        num_tokens = sequence.num_known + ahead
        missing = -(-num_tokens // self.block_size) - len(sequence.block_table)
        if missing > 0:
            taken = self.blocks.take(missing, self._evicted)
            if taken is None:
                return False
            sequence.block_table.extend(taken)
        return True

    def publish(self, sequence: Sequence) -> None:
        """Offer its full blocks to others; what was computed has been checked to be finite."""
        keys = sequence.keys
        if keys is None:
            return
        first = sequence.num_checked // self.block_size
        stop = sequence.num_computed // self.block_size
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

    def forget(self) -> bool:
        """Forget what was computed for earlier prompts; False, and nothing, while one runs."""
        if not self.blocks.forget():
            return False
        self.forget_host()
        return True

    def forget_host(self) -> None:
        if self.host is not None:
            self.host.forget()

    @property
    def has_moves(self) -> bool:
        """Whether copies are to be made before the next step."""
        return bool(self._moves)

    def take_moves(self) -> list[Move]:
        """Copies to make before the next step, in this order."""
        moves, self._moves = self._moves, []
        return moves

    def _match(self, sequence: Sequence) -> Match:
        if sequence.keys is None:
            return Match()
        self._extend_keys(sequence, sequence.num_known // self.block_size)
        return find_match(sequence, sequence.keys, self.blocks, self.host)

    def _fill(self, fresh: list[int], match: Match) -> None:
        """Plan the copies into a sequence's own blocks."""
        num_full = len(match.slots)
        for slot, block in zip(match.slots, fresh, strict=False):
            self._moves.append(ReadBack(slot, block, self.block_size))
        if match.source is not None:
            self._moves.append(BlockCopy(match.source, fresh[num_full], match.num_rows))
            # Copies are made before anything is written: the source can be given away.
            self.blocks.release([match.source])
        if match.source_slot is not None:
            self._moves.append(ReadBack(match.source_slot, fresh[num_full], match.num_rows))
        if self.host is not None:
            num_tokens = match.num_read_back(self.block_size)
            self.host.note_read_back(len(match.all_slots), num_tokens)

    def _shareable(self, sequence: Sequence) -> int:
        """Full blocks before the last known token."""
        return (sequence.num_known - 1) // self.block_size

    def _take(self, count: int, spare: int, match: Match) -> list[int] | None:
        if count + spare > self.blocks.num_available:
            return None
        if self.host is None:
            return self.blocks.take(count)
        with self.host.held(match.all_slots):
            return self.blocks.take(count, self._evicted)

    def _evicted(self, block: int, keys: list[bytes]) -> None:
        slot = self.host.keep(keys) if self.host is not None else None
        if slot is not None:
            self._moves.append(MoveOut(block, slot))

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
