"""The scheduler's promises, whatever arrives, finishes or is cancelled in whatever order."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sequences import sequence

from attention_svc.kv_cache import BlockPool
from attention_svc.scheduler import Scheduler, Slice
from attention_svc.sequence import Sequence
from rpc.errors import Overloaded

BLOCK = 4


def scheduler(blocks: int = 8, **limits: int) -> Scheduler:
    known = {
        "max_batch_tokens": 16, "max_running": 4, "max_waiting": 6, "max_waiting_tokens": 100,
    }  # fmt: skip
    return Scheduler(BlockPool(blocks), block_size=BLOCK, **{**known, **limits})


def carry_out(planner: Scheduler, plan: list[Slice]) -> list[Sequence]:
    """What the engine does with a step; returns the sequences that finished."""
    finished = []
    for part in plan:
        completes = part.completes
        part.sequence.num_computed += part.num_tokens
        if completes:
            part.sequence.output_ids.append(7)
            if len(part.sequence.output_ids) >= part.sequence.params.max_tokens:
                finished.append(part.sequence)
    for done in finished:
        planner.remove(done)
    return finished


class SchedulerMachine(RuleBasedStateMachine):
    @initialize(blocks=st.integers(2, 12), budget=st.integers(1, 20), running=st.integers(1, 5))
    def make(self, blocks: int, budget: int, running: int) -> None:
        self.blocks = BlockPool(blocks)
        self.budget, self.max_running = budget, running
        self.scheduler = Scheduler(
            self.blocks, block_size=BLOCK, max_batch_tokens=budget, max_running=running,
            max_waiting=6, max_waiting_tokens=100,
        )  # fmt: skip
        self.alive: list[Sequence] = []

    @rule(prompt=st.integers(1, 40), max_tokens=st.integers(1, 12))
    def arrive(self, prompt: int, max_tokens: int) -> None:
        new = sequence(prompt, max_tokens=max_tokens)
        waiting, tokens = len(self.scheduler.waiting), self.scheduler.waiting_tokens
        try:
            self.scheduler.add(new)
        except ValueError:
            assert prompt + max_tokens > self.scheduler.capacity_tokens
        except Overloaded:
            assert waiting >= 6 or tokens + prompt > 100
        else:
            self.alive.append(new)

    @precondition(lambda self: self.alive)
    @rule(pick=st.randoms(use_true_random=False))
    def cancel(self, pick) -> None:  # type: ignore[no-untyped-def]
        gone = pick.choice(self.alive)
        self.alive.remove(gone)
        self.scheduler.remove(gone)
        assert gone.block_table == []

    @rule()
    def step(self) -> None:
        plan = self.scheduler.schedule()
        assert bool(plan) == bool(self.alive)
        assert sum(part.num_tokens for part in plan) <= self.budget
        assert len({id(part.sequence) for part in plan}) == len(plan)
        for part in plan:
            assert 1 <= part.num_tokens <= part.sequence.num_pending
            room = len(part.sequence.block_table) * BLOCK
            assert part.sequence.num_computed + part.num_tokens <= room
        for done in carry_out(self.scheduler, plan):
            self.alive.remove(done)

    @invariant()
    def no_block_is_leaked_or_shared(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        held = [block for s in self.alive for block in s.block_table]
        assert len(held) == len(set(held))
        assert len(held) + self.blocks.num_free == self.blocks.num_blocks
        assert all(0 <= block < self.blocks.num_blocks for block in held)

    @invariant()
    def queues_hold_every_live_sequence_once_in_order_of_arrival(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        running, waiting = self.scheduler.running, list(self.scheduler.waiting)
        assert len(running) <= self.max_running
        assert sorted(map(id, running + waiting)) == sorted(map(id, self.alive))
        arrivals = [s.arrival for s in waiting]
        assert arrivals == sorted(arrivals)
        # Nobody overtakes for good: whoever waits came after everybody who runs.
        assert all(r.arrival < w.arrival for r in running for w in waiting)
        assert all(not s.block_table and s.num_computed == 0 for s in waiting)

    def teardown(self) -> None:
        """Every sequence finally runs to its end, and every block comes back."""
        if not hasattr(self, "scheduler"):
            return
        for _ in range(5000):
            if not self.alive:
                break
            self.step()
        assert not self.alive, "a sequence never finished"
        assert self.blocks.num_free == self.blocks.num_blocks
        assert self.scheduler.kv_usage_ratio == 0.0


SchedulerMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None
)
TestSchedulerMachine = SchedulerMachine.TestCase


def test_decode_rows_come_before_a_long_prompt_and_share_its_step():
    planner = scheduler(blocks=40, max_batch_tokens=10)
    short, long = sequence(2), sequence(60, max_tokens=1)
    planner.add(short)
    carry_out(planner, planner.schedule())
    planner.add(long)
    plan = planner.schedule()
    assert [(part.sequence, part.num_tokens) for part in plan] == [(short, 1), (long, 9)]
    assert [part.completes for part in plan] == [True, False]


def test_a_prompt_is_cut_into_chunks_and_only_the_last_completes():
    planner = scheduler(blocks=40, max_batch_tokens=10)
    planner.add(sequence(25))
    seen = []
    for _ in range(3):
        (part,) = plan = planner.schedule()
        seen.append((part.num_tokens, part.completes))
        carry_out(planner, plan)
    assert seen == [(10, False), (10, False), (5, True)]


def test_the_newest_is_preempted_and_computes_again_with_the_same_tokens():
    planner = scheduler(blocks=4, max_batch_tokens=16)
    old, new = sequence(7, max_tokens=9), sequence(7, max_tokens=9)
    planner.add(old)
    planner.add(new)
    carry_out(planner, planner.schedule())
    while not planner.num_preemptions:
        plan = planner.schedule()
        carry_out(planner, plan)
    assert planner.running == [old]
    assert list(planner.waiting) == [new]
    known = [*new.prompt_ids, *new.output_ids]
    while old.block_table:
        carry_out(planner, planner.schedule())
    (part,) = planner.schedule()
    assert part.sequence is new
    assert part.num_tokens == len(known)  # all of it again, prompt and output
    assert new.known_slice(0, part.num_tokens) == known


def test_what_can_never_fit_is_refused_at_once():
    planner = scheduler(blocks=3)
    with pytest.raises(ValueError, match=r"13 tokens.*12 tokens"):
        planner.add(sequence(5, max_tokens=8))
    planner.add(sequence(4, max_tokens=8))


def test_full_queues_are_refused_as_overload():
    planner = scheduler(blocks=100, max_waiting=2)
    for _ in range(2):
        planner.add(sequence(3))
    with pytest.raises(Overloaded, match="2 requests are waiting"):
        planner.add(sequence(3))
    planner = scheduler(blocks=100, max_waiting_tokens=10)
    planner.add(sequence(50))  # alone it may be longer than the limit
    with pytest.raises(Overloaded, match="prompt tokens"):
        planner.add(sequence(1))


def test_removing_a_stranger_or_twice_changes_nothing():
    planner = scheduler()
    one = sequence(5)
    planner.add(one)
    planner.schedule()
    for _ in range(2):
        planner.remove(one)
        planner.remove(sequence(3))
    assert planner.kv_usage_ratio == 0.0
    assert planner.schedule() == []


@given(st.lists(st.integers(0, 5), max_size=30))
def test_block_pool_hands_out_each_block_once(counts: list[int]):
    pool = BlockPool(7)
    held: list[list[int]] = []
    for count in counts:
        if count == 0 and held:
            pool.give_back(held.pop(0))
            continue
        taken = pool.take(count)
        in_use = sum(map(len, held))
        assert (taken is None) == (count > 7 - in_use)
        if taken is not None:
            held.append(taken)
    flat = [block for blocks in held for block in blocks]
    assert len(flat) == len(set(flat))
    assert pool.num_free == 7 - len(flat)


def test_a_block_given_back_twice_is_our_bug():
    pool = BlockPool(2)
    blocks = pool.take(2)
    assert blocks is not None
    pool.give_back(blocks)
    with pytest.raises(AssertionError, match="twice"):
        pool.give_back(blocks)
    with pytest.raises(ValueError, match="at least one"):
        BlockPool(0)
