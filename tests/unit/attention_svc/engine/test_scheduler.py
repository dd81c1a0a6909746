"""The scheduler's promises: whose turn it is, and how long a sequence waits at most."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attention_svc.engine.scheduler import Scheduler
from attention_svc.kv.block_pool import BlockPool
from attention_svc.kv.block_tables import BlockTables
from rpc.errors import Overloaded
from tests.support.attention_svc.planners import BLOCK, carry_out, scheduler, steps_until
from tests.support.attention_svc.sequences import sequence
from tests.support.examples import examples


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
    planner = scheduler(blocks=5, max_batch_tokens=16)
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


@examples(50)
@given(
    long=st.integers(100, 2000),
    short=st.integers(1, 60),
    budget=st.integers(8, 40),
    decoding=st.integers(0, 3),
)
def test_a_short_prompt_waits_for_half_of_the_rows_at_most(
    long: int, short: int, budget: int, decoding: int
):
    planner = scheduler(blocks=2000, max_batch_tokens=budget, max_running=6)
    for _ in range(decoding):
        planner.add(sequence(1, max_tokens=5000))
    carry_out(planner, planner.schedule())
    planner.add(sequence(long))
    late = sequence(short)
    planner.add(late)
    half = (budget - decoding) // 2
    assert steps_until(planner, lambda: bool(late.output_ids)) <= -(-short // half) + 1


@examples(50)
@given(
    long=st.integers(30, 500),
    budget=st.integers(6, 40),
    running=st.integers(2, 6),
    chance=st.randoms(use_true_random=False),
)
def test_short_prompts_cannot_hold_up_a_long_one(
    long: int, budget: int, running: int, chance: Random
):
    """However many keep coming, the bound in the scheduler's docstring holds."""
    planner = scheduler(blocks=2000, max_batch_tokens=budget, max_running=running)
    old = sequence(long, max_tokens=1)
    planner.add(old)
    steps = 0
    while not old.output_ids:
        while len(planner.waiting) < 3:
            planner.add(sequence(chance.randint(1, 20), max_tokens=chance.randint(1, 9)))
        carry_out(planner, planner.schedule())
        steps += 1
    assert steps <= -(-2 * long // max(1, budget - min(running, budget) + 1)) + 1


@examples(50)
@given(
    budget=st.integers(8, 40), shared=st.integers(1, 10), chance=st.randoms(use_true_random=False)
)
def test_whoever_waits_for_a_long_prompt_waits_no_longer_than_for_itself(
    budget: int, shared: int, chance: Random
):
    """A long prompt that shorter ones pass computes the prefix of a short one at its priority."""
    tables = BlockTables(BlockPool(2000), block_size=BLOCK)
    planner = Scheduler(
        tables, max_batch_tokens=budget, max_running=6, max_waiting=9, max_waiting_tokens=10_000
    )
    prefix = [1] * (shared * BLOCK)
    planner.add(sequence([2] * 1500))  # the oldest: half of the rows are its
    planner.add(sequence([*prefix, *[3] * 1500]))
    planner.add(sequence([4] * 200))  # and shorter than the leader
    late = sequence([*prefix, 5])
    planner.add(late)
    half = (budget - 4) // 2
    steps = steps_until(planner, lambda: bool(late.output_ids))
    assert late.num_cached == len(prefix)
    assert steps <= -(-len(late.prompt_ids) // half) + 2


@examples(50)
@given(blocks=st.integers(30, 60), chance=st.randoms(use_true_random=False))
def test_nobody_waits_for_those_who_came_later(blocks: int, chance: Random):
    """With no room to spare and others coming all the time, each is admitted in its turn, and
    the steps until its end are bounded by the tokens of those that came before it."""
    planner = scheduler(blocks=blocks, max_batch_tokens=8, max_running=4)
    before = [sequence(chance.randint(1, 60), max_tokens=chance.randint(1, 20)) for _ in range(3)]
    mine = sequence(chance.randint(1, 90), max_tokens=5)
    for made in (*before, mine):
        planner.add(made)
    # Each step brings one of those before it on by a row at least; preemption is of newer ones.
    bound = sum(len(made.prompt_ids) + made.params.max_tokens for made in (*before, mine))
    steps = 0
    while len(mine.output_ids) < 5:
        if len(planner.waiting) < 4:
            planner.add(sequence(chance.randint(1, 30), max_tokens=chance.randint(1, 30)))
        carry_out(planner, planner.schedule())
        steps += 1
        assert steps <= bound


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


def test_a_sequence_that_waits_for_its_grammar_gets_no_row_and_keeps_its_blocks():
    planner = scheduler(blocks=40, max_batch_tokens=10)
    late, ending, other = (sequence(3) for _ in range(3))
    for one in (late, ending, other):
        planner.add(one)
    carry_out(planner, planner.schedule())
    late.output_ids.pop()  # its logits are there, its next token is not
    ending.is_ending = True
    assert late.num_pending == 0
    for _ in range(3):
        plan = planner.schedule()
        assert [part.sequence for part in plan] == [other]
        carry_out(planner, plan)
    assert late.block_table
    late.output_ids.append(7)
    assert late in [part.sequence for part in planner.schedule()]
