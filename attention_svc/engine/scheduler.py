"""Which sequences work in the next step, on how many tokens? No tensors, no I/O.

Prefill and decode are not told apart: a sequence has known and computed tokens, and a step computes
one or more of those pending, within a budget of rows.

- Every running sequence with one pending token gets its row in every step.
- The rows left are shared equally between the clients that have prompts; what one does not need
  goes to the others. See `row_shares` for the shares within a client.
- Waiting sequences are admitted client by client: first from the client with fewest running, its
  own in order of arrival, with blocks for all their tokens. So a single client is served in order
  of arrival, and no client waits longer than for its share, whatever the others ask for. When slots
  or blocks run out, a client that runs at least two fewer than another takes one from it.
  A client with a name may fill most of the queue, never all of it. A sequence that waits for
  another to compute their common prefix lets later ones pass, and the other counts as no longer
  than it; it is admitted as soon as the other is done or gone.
- When blocks run out, the newest running sequence of the client that runs most is preempted: it
  gives its blocks back, and later computes again what is no longer in the cache, with the same
  tokens. The oldest of all is never preempted for that.
"""

import itertools
from collections import Counter, deque
from operator import attrgetter

from attention_svc.engine.row_shares import Slice, share_rows
from attention_svc.kv.block_tables import BlockTables
from attention_svc.sequence.sequence import Sequence
from rpc.errors import Overloaded
from rpc.fair_shares import may_wait


class Scheduler:
    """Queues and rows. `schedule` plans a step; the engine reports what became of it."""

    def __init__(
        self,
        tables: BlockTables,
        *,
        max_batch_tokens: int,
        max_running: int,
        max_waiting: int,
        max_waiting_tokens: int,
    ):
        self.tables = tables
        self._max_batch_tokens = max_batch_tokens
        # Every running sequence can have a row in every step.
        self._max_running = min(max_running, max_batch_tokens)
        self._max_waiting = max_waiting
        self._max_waiting_tokens = max_waiting_tokens
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.num_preemptions = 0
        self._arrivals = itertools.count()
        self._no_room: tuple[Sequence, int, int] | None = None
        self._urgency: dict[int, int] = {}
        """By arrival: tokens of the shortest sequence that waits for this one's prefix."""

    @property
    def waiting_tokens(self) -> int:
        return sum(sequence.num_pending for sequence in self.waiting)

    @property
    def is_full(self) -> bool:
        """Whether a sequence must leave before another one can be admitted."""
        return len(self.running) >= self._max_running

    @property
    def kv_usage_ratio(self) -> float:
        return self.tables.blocks.num_used / self.tables.blocks.num_blocks

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence.

        Raises:
            Overloaded: too many sequences or prompt tokens are waiting.
            ValueError: the request can never fit the KV cache.
        """
        longest = len(sequence.prompt_ids) + sequence.params.max_tokens
        if longest > self.tables.capacity_tokens:
            raise ValueError(
                f"prompt and max_tokens ({longest} tokens) exceed the KV cache of "
                f"{self.tables.capacity_tokens} tokens"
            )
        named = sequence.client_id  # clients without a name cannot be told apart: no shares
        own = [one.num_pending for one in self.waiting if named and one.client_id == named]
        if not may_wait(len(own), len(self.waiting), self._max_waiting):
            raise Overloaded(f"{len(self.waiting)} requests are waiting already; try again later")
        if self.waiting and not may_wait(
            sum(own), self.waiting_tokens, self._max_waiting_tokens, sequence.num_known
        ):
            raise Overloaded("too many prompt tokens are waiting already; try again later")
        self.tables.enter(sequence)
        sequence.arrival = next(self._arrivals)
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Drop a finished or cancelled sequence; its blocks are free or cached at once."""
        if sequence in self.running:
            self.running.remove(sequence)
            self.tables.close(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    def schedule(self) -> list[Slice]:
        """The next step, with blocks taken for its tokens. Empty when there is nothing to do."""
        self._make_room()
        self._share_slots()
        self._admit()
        return share_rows(self.running, self._max_batch_tokens, self._urgency)

    def _make_room(self) -> None:
        """Take blocks that running sequences need, preempting the newest of the busiest client."""
        preempted: set[int] = set()
        for sequence in sorted(self.running, key=attrgetter("arrival")):
            while sequence.arrival not in preempted and not self.tables.grow(sequence):
                held = self._held()
                victim = max(self.running, key=lambda s: (held[s.client_id], s.arrival))
                preempted.add(victim.arrival)
                self._preempt(victim)

    def _preempt(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self.tables.close(sequence)
        self.num_preemptions += 1
        # In order of arrival: it keeps its place in the queue.
        index = next(
            (i for i, other in enumerate(self.waiting) if other.arrival > sequence.arrival),
            len(self.waiting),
        )
        self.waiting.insert(index, sequence)

    def _admit(self) -> None:
        """Admit waiting sequences, each client in its turn, until slots or blocks run out."""
        self._urgency.clear()
        for sequence in self._in_turn() if not self.is_full else ():
            if self.is_full or self._has_no_room(sequence):
                break
            leader = self.tables.awaited(sequence)
            if leader is not None:
                urgency = self._urgency.get(leader.arrival, sequence.num_pending)
                self._urgency[leader.arrival] = min(urgency, sequence.num_pending)
                continue
            # A block to spare for each running one, or its next token could preempt this one.
            if not self.tables.open(sequence, spare=len(self.running)):
                available = self.tables.blocks.num_available
                self._no_room = (sequence, available, len(self.running))
                break
            self.waiting.remove(sequence)
            self.running.append(sequence)

    def _share_slots(self) -> None:
        """Without a slot or blocks left, preempt for a client with at least two fewer running."""
        if not self.waiting:
            return
        first = self._in_turn()[0]
        if not self.is_full and not self._has_no_room(first):
            return
        held = self._held()
        busiest, most = held.most_common(1)[0]
        if most < held[first.client_id] + 2 or self.tables.awaited(first) is not None:
            return
        own = [sequence for sequence in self.running if sequence.client_id == busiest]
        self._preempt(max(own, key=lambda s: s.arrival))

    def _held(self) -> Counter[str]:
        """Running sequences by client."""
        return Counter(sequence.client_id for sequence in self.running)

    def _in_turn(self) -> list[Sequence]:
        """The waiting sequences in the order of admission."""
        ahead = self._held()
        if len({sequence.client_id for sequence in self.waiting}) < 2:
            return list(self.waiting)
        turns: list[tuple[int, int]] = []
        for sequence in self.waiting:  # in order of arrival
            turns.append((ahead[sequence.client_id], sequence.arrival))
            ahead[sequence.client_id] += 1
        order = sorted(range(len(turns)), key=turns.__getitem__)
        return [self.waiting[index] for index in order]

    def _has_no_room(self, sequence: Sequence) -> bool:
        """Whether nothing was freed since there was no room for it: do not search again."""
        if self._no_room is None:
            return False
        refused, available, num_running = self._no_room
        return (
            refused is sequence
            and self.tables.blocks.num_available <= available
            and len(self.running) >= num_running
        )
