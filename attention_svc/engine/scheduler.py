"""Who works in the next step, on how many tokens? No tensors, no I/O.

There is no prefill and no decode kind: a sequence has tokens known and tokens
computed, and a step gives it q >= 1 of them under a row budget.

- Every running sequence with one pending token gets its row in every step.
- The rows left are shared equally between the clients that have prompts, and what one does not
  need goes to the others. See `row_shares` for who of a client gets them.
- Waiting sequences are admitted client by client: the one with fewest running comes first, its
  own in order of arrival, with blocks for all their tokens. So a client alone is served in order
  of arrival, and how much another asks for makes nobody wait longer than for its share. Where
  slots or blocks are out, a client that runs at least two fewer than another gets one's of that
  other.
  A client with a name may fill most of the queue, never all of it. One that waits for another to
  compute their common prefix lets later ones pass and lends the other its own shortness; it goes
  on by itself as soon as the other is done or gone.
- When blocks run out, the newest running sequence of the client that runs most is preempted: it
  gives its blocks back and computes again later what has not survived in the cache, with the same
  tokens. The oldest of all is never preempted for that.
"""

import itertools
from collections import Counter, deque

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
        """By arrival: tokens of the shortest sequence that waits for this one."""

    @property
    def waiting_tokens(self) -> int:
        return sum(sequence.num_pending for sequence in self.waiting)

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
        named = sequence.client_id  # those without a name cannot be told apart: no share for each
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
        """Forget a finished or cancelled sequence; its blocks are free or cached at once."""
        if sequence in self.running:
            self.running.remove(sequence)
            self.tables.close(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    def schedule(self) -> list[Slice]:
        """The next step; blocks for its tokens are taken. Empty when nothing waits or runs."""
        self._make_room()
        self._share_slots()
        self._admit()
        return share_rows(self.running, self._max_batch_tokens, self._urgency)

    def _make_room(self) -> None:
        """A block for each running sequence that needs one; who runs most pays, with its newest."""
        for sequence in sorted(self.running, key=lambda s: s.arrival):
            while sequence in self.running and not self.tables.grow(sequence):
                held = self._held()
                self._preempt(max(self.running, key=lambda s: (held[s.client_id], s.arrival)))

    def _preempt(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self.tables.close(sequence)
        self.num_preemptions += 1
        # In order of arrival: nobody overtakes it for good.
        index = next(
            (i for i, other in enumerate(self.waiting) if other.arrival > sequence.arrival),
            len(self.waiting),
        )
        self.waiting.insert(index, sequence)

    def _admit(self) -> None:
        """Open waiting sequences, each client in its turn, until slots or blocks run out."""
        self._urgency.clear()
        for sequence in self._in_turn() if len(self.running) < self._max_running else ():
            if len(self.running) >= self._max_running or self._has_no_room(sequence):
                break
            leader = self.tables.awaited(sequence)
            if leader is not None:
                urgency = self._urgency.get(leader.arrival, sequence.num_pending)
                self._urgency[leader.arrival] = min(urgency, sequence.num_pending)
                continue
            # A block to spare for each running one: its next tokens must not preempt this one.
            if not self.tables.open(sequence, spare=len(self.running)):
                available = self.tables.blocks.num_available
                self._no_room = (sequence, available, len(self.running))
                break
            self.waiting.remove(sequence)
            self.running.append(sequence)

    def _share_slots(self) -> None:
        """Where slots or blocks are out, the client with most gives to one with two fewer or less."""
        if not self.waiting:
            return
        first = self._in_turn()[0]
        if len(self.running) < self._max_running and not self._has_no_room(first):
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
        """The waiting ones as they are served while nothing else changes."""
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
        """Whether nothing has come free since there was no room for it: do not search again."""
        if self._no_room is None:
            return False
        refused, available, num_running = self._no_room
        return (
            refused is sequence
            and self.tables.blocks.num_available <= available
            and len(self.running) >= num_running
        )
