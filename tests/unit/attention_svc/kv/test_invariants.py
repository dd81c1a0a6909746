"""Whatever arrives, finishes, fails or is cancelled in any order: no block is lost, and no
sequence reads a row outside its own prefix."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.attention_svc.kv_world import World, random_operation, some_prompt
from tests.support.examples import examples


@examples(60)
@given(
    blocks=st.integers(2, 14),
    budget=st.integers(1, 20),
    running=st.integers(1, 5),
    prefix_cache=st.booleans(),
    slots=st.integers(0, 14),
    paying=st.sampled_from((1.0, 1.0, 0.7)),
    chance=st.randoms(use_true_random=False),
)
def test_random_operations(
    blocks: int,
    budget: int,
    running: int,
    prefix_cache: bool,
    slots: int,
    paying: float,
    chance: Random,
) -> None:
    world = World(
        blocks=blocks,
        budget=budget,
        running=running,
        prefix_cache=prefix_cache,
        slots=slots,
        pays=lambda blocks, tokens: chance.random() < paying,
    )
    for _ in range(40):
        random_operation(world, chance)
    world.finish()
    assert prefix_cache or not len(world.pool._cached)


@pytest.mark.slow
def test_a_hundred_thousand_random_operations() -> None:
    chance = Random(7)
    preemptions = hits = read_back = 0
    for _ in range(20):
        world = World(
            blocks=chance.randint(2, 30),
            budget=chance.randint(1, 40),
            running=chance.randint(1, 8),
            slots=chance.randint(0, 40),
        )
        for _ in range(5000):
            random_operation(world, chance)
        world.finish()
        preemptions += world.scheduler.num_preemptions
        hits += world.tables.num_hit_tokens
        read_back += world.host.num_read_back if world.host is not None else 0
    assert preemptions > 1000
    assert hits > 10_000
    assert read_back > 1000


@examples(60)
@given(
    choices=st.integers(2, 5), budget=st.integers(5, 30), chance=st.randoms(use_true_random=False)
)
def test_the_same_prompt_many_times_is_computed_once(choices: int, budget: int, chance: Random):
    """All at once, as n choices are; the last prompt token is computed by each."""
    world = World(blocks=100, budget=budget, running=choices)
    prompt = [1] * chance.randint(1, 19)
    for _ in range(choices):
        assert world.arrive(prompt, 1)
    world.finish()
    assert world.num_rows == len(prompt) + choices - 1


def test_choices_start_together_as_soon_as_the_first_has_computed_the_prompt():
    world = World(blocks=100, budget=10, running=4)
    choices = [world.arrive([1] * 18, 6) for _ in range(4)]
    steps = 0
    while world.alive:
        plan = world.step()
        steps += 1
        assert len(plan) == (1 if steps <= 2 else 4 if steps <= 7 else 3)
    assert steps == 2 + 6  # the prompt in two chunks; the others' tokens one step later
    assert [made and made.num_cached for made in choices] == [0, 17, 17, 17]


@examples(60)
@given(
    others=st.integers(1, 4), budget=st.integers(5, 30), chance=st.randoms(use_true_random=False)
)
def test_a_common_prefix_is_computed_once(others: int, budget: int, chance: Random):
    world = World(blocks=100, budget=budget, running=others + 1)
    common = [1] * chance.randint(1, 12)
    tails = [[5 + index] * chance.randint(1, 4) for index in range(others + 1)]
    for tail in tails:
        assert world.arrive(common + tail, 1)
    world.finish()
    shareable = len(common) // 4 * 4
    total = sum(len(common) + len(tail) for tail in tails)
    assert world.num_rows <= total - shareable * others


@examples(60)
@given(chance=st.randoms(use_true_random=False))
def test_whoever_waits_for_a_sequence_goes_on_when_it_goes_away(chance: Random):
    world = World(blocks=100, budget=5, running=4)
    leader = world.arrive([1] * 19, 3)
    follower = world.arrive([1] * 19, 3)
    assert leader
    assert follower
    for _ in range(chance.randint(1, 3)):
        world.step()
    assert follower in world.scheduler.waiting
    computed = leader.num_computed
    if chance.random() < 0.5:
        world.cancel(leader)
    else:
        world.step(fails=True)
    plan = world.step()
    assert [part.sequence for part in plan] == [follower]
    assert computed == follower.num_cached
    world.finish()


def test_a_preempted_sequence_resumes_from_what_survived():
    world = World(blocks=20, budget=30, running=4)
    made = world.arrive(some_prompt(Random(1), 1) + [3] * 20, 9)
    assert made
    for _ in range(3):
        world.step()
    world.preempt(made)
    (part,) = world.step()
    assert part.num_tokens == 1  # the rows of its last block are copied
    assert made.num_cached == 0  # what it computed itself is no hit
    world.finish()


def test_a_second_turn_finds_the_first_ones_answer():
    world = World(blocks=20, budget=30, running=4)
    first = world.arrive([3] * 10, 9)
    assert first
    while first in world.alive:
        world.step()
    second = world.arrive([*first.prompt_ids, *first.output_ids, 5, 5], 2)
    assert second
    world.finish()
    assert second.num_cached == 18  # all that has K and V: the last one sampled has not


def test_tenants_share_nothing():
    world = World(blocks=20, budget=30, running=4)
    for salt in ("a", "b"):
        made = world.arrive([3] * 10, 1, salt)
        assert made
        world.finish()
        assert made.num_cached == 0
    again = world.arrive([3] * 10, 1, "b")
    world.finish()
    assert again
    assert again.num_cached == 9


def test_prompt_logprobs_need_every_row_computed():
    world = World(blocks=20, budget=30, running=4)
    world.arrive([3] * 10, 1)
    world.finish()
    made = world.arrive([3] * 10, 1, prompt_logprobs=True)
    (part,) = world.step()
    assert (part.sequence, part.num_tokens) == (made, 10)
