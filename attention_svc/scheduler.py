"""Who works in the next step, on how many tokens? No tensors, no I/O.

There is no prefill and no decode kind: a sequence has tokens known and tokens
computed, and a step gives it q >= 1 of them under a row budget. Running
sequences come first, the nearly done (one pending token) before the long ones,
so that decode rows never wait behind a prompt; then waiting ones in order of
arrival. When blocks run out the newest running sequence is preempted: its
blocks are freed and it computes again later, with the same tokens.
"""

from collections import deque
from dataclasses import dataclass

from attention_svc.kv_cache import BlockPool
from attention_svc.sequence import Sequence
from rpc.errors import Overloaded


@dataclass(frozen=True, slots=True)
class Slice:
    """q tokens of a sequence, from its first pending one."""

    sequence: Sequence
    num_tokens: int

    @property
    def completes(self) -> bool:
        """Whether the step computes the last known token: its logits choose the next one."""
        return self.num_tokens == self.sequence.num_pending


class Scheduler:
    """Queues and block accounting. `schedule` plans a step; the engine reports what became of it."""

    def __init__(
        self,
        blocks: BlockPool,
        *,
        block_size: int,
        max_batch_tokens: int,
        max_running: int,
        max_waiting: int,
        max_waiting_tokens: int,
    ):
        self._blocks = blocks
        self._block_size = block_size
        self._max_batch_tokens = max_batch_tokens
        self._max_running = max_running
        self._max_waiting = max_waiting
        self._max_waiting_tokens = max_waiting_tokens
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.num_preemptions = 0
        self._fresh_blocks: list[int] = []

    @property
    def waiting_tokens(self) -> int:
        return sum(sequence.num_pending for sequence in self.waiting)

    @property
    def capacity_tokens(self) -> int:
        """Longest sequence the cache can hold."""
        return self._blocks.num_blocks * self._block_size

    @property
    def kv_usage_ratio(self) -> float:
        return 1.0 - self._blocks.num_free / self._blocks.num_blocks

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence.

        Raises:
            Overloaded: too many sequences or prompt tokens are waiting.
            ValueError: the request can never fit the KV cache.
        """
        longest = len(sequence.prompt_ids) + sequence.params.max_tokens
        if longest > self.capacity_tokens:
            raise ValueError(
                f"prompt and max_tokens ({longest} tokens) exceed the KV cache of "
                f"{self.capacity_tokens} tokens"
            )
        if len(self.waiting) >= self._max_waiting:
            raise Overloaded(f"{len(self.waiting)} requests are waiting already; try again later")
        if self.waiting and self.waiting_tokens + sequence.num_known > self._max_waiting_tokens:
            raise Overloaded("too many prompt tokens are waiting already; try again later")
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Forget a finished or cancelled sequence and free its blocks."""
        if sequence in self.running:
            self.running.remove(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)
        self._free(sequence)

    def schedule(self) -> list[Slice]:
        """The next step; blocks for its tokens are taken. Empty when nothing waits or runs."""
        plan: list[Slice] = []
        budget = self._max_batch_tokens
        planned: set[int] = set()
        for sequence in sorted(self.running, key=lambda s: (s.num_pending > 1, s.arrival)):
            if budget < 1:
                break
            if sequence not in self.running:
                continue  # preempted for an older one
            num_tokens = min(sequence.num_pending, budget)
            if not self._make_room(sequence, num_tokens, planned):
                continue
            plan.append(Slice(sequence, num_tokens))
            planned.add(id(sequence))
            budget -= num_tokens
        while self.waiting and budget > 0 and len(self.running) < self._max_running:
            sequence = self.waiting[0]
            num_tokens = min(sequence.num_pending, budget)
            if not self._grow(sequence, num_tokens):
                break
            self.waiting.popleft()
            self.running.append(sequence)
            plan.append(Slice(sequence, num_tokens))
            budget -= num_tokens
        return plan

    def take_fresh_blocks(self) -> list[int]:
        """Blocks handed out since the last call: whatever they hold is another sequence's."""
        fresh, self._fresh_blocks = self._fresh_blocks, []
        return fresh

    def _make_room(self, sequence: Sequence, num_tokens: int, planned: set[int]) -> bool:
        """Blocks for a running sequence, preempting newer ones that are not in the plan yet."""
        while not self._grow(sequence, num_tokens):
            victim = max((s for s in self.running if id(s) not in planned), key=lambda s: s.arrival)
            self._preempt(victim)
            if victim is sequence:
                return False
        return True

    def _preempt(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self._free(sequence)
        self.num_preemptions += 1
        # In order of arrival: nobody overtakes it for good.
        index = next(
            (i for i, other in enumerate(self.waiting) if other.arrival > sequence.arrival),
            len(self.waiting),
        )
        self.waiting.insert(index, sequence)

    def _grow(self, sequence: Sequence, num_tokens: int) -> bool:
        """Take blocks until `num_tokens` more fit; False (and nothing taken) when they run out."""
        needed = -(-(sequence.num_computed + num_tokens) // self._block_size)
        missing = needed - len(sequence.block_table)
        if missing > 0:
            taken = self._blocks.take(missing)
            if taken is None:
                return False
            sequence.block_table.extend(taken)
            self._fresh_blocks.extend(taken)
        return True

    def _free(self, sequence: Sequence) -> None:
        self._blocks.give_back(sequence.block_table)
        sequence.block_table = []
        sequence.num_computed = 0
