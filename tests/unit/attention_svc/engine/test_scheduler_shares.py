"""What clients share of the scheduler: slots, blocks, rows and places in the queue."""

import contextlib
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attention_svc.engine.row_shares import Slice
from attention_svc.engine.scheduler import Scheduler
from attention_svc.kv.block_pool import BlockPool
from attention_svc.kv.block_tables import BlockTables
from rpc.errors import Overloaded
from tests.support.attention_svc.planners import BLOCK, carry_out, scheduler, steps_until
from tests.support.attention_svc.sequences import sequence
from tests.support.examples import examples


def admitted(planner: Scheduler) -> list[str]:
    """Whose sequences run, in the order in which they came to run."""
    return [one.client_id for one in planner.running]


def test_a_client_with_fewer_running_is_admitted_before_who_came_earlier():
    planner = scheduler(blocks=40, max_running=4, max_waiting=20)
    for client in "aaaaabbc":
        planner.add(sequence(2, client_id=client))
    planner.schedule()
    assert sorted(admitted(planner)) == ["a", "a", "b", "c"]
    (done,) = (one for one in planner.running if one.client_id == "c")
    planner.remove(done)
    planner.schedule()
    assert sorted(admitted(planner)) == ["a", "a", "b", "b"]


def test_one_client_alone_is_served_in_order_of_arrival():
    planner = scheduler(blocks=40, max_running=3)
    waiting = [sequence(2, client_id="a") for _ in range(5)]
    for one in waiting:
        planner.add(one)
    planner.schedule()
    assert planner.running == waiting[:3]
    assert list(planner.waiting) == waiting[3:]


def test_a_client_that_holds_every_slot_gives_one_to_the_next_and_no_more_than_its_share():
    planner = scheduler(blocks=80, max_running=4, max_waiting=20)
    for _ in range(6):
        planner.add(sequence(2, client_id="a", max_tokens=60))
    carry_out(planner, planner.schedule())
    assert admitted(planner) == ["a"] * 4
    newest = planner.running[-1]
    for _ in range(4):
        planner.add(sequence(2, client_id="b", max_tokens=60))
    for _ in range(10):
        carry_out(planner, planner.schedule())
    assert sorted(admitted(planner)) == ["a", "a", "b", "b"]
    assert planner.num_preemptions == 2, "it comes to rest at equal shares"
    assert newest in planner.waiting
    planner.add(sequence(2, client_id="c", max_tokens=60))
    planner.add(sequence(2, client_id="c", max_tokens=60))
    for _ in range(10):
        carry_out(planner, planner.schedule())
    assert sorted(admitted(planner)) in (["a", "a", "b", "c"], ["a", "b", "b", "c"])
    assert planner.num_preemptions == 3


def test_a_client_that_waits_for_its_own_prefix_takes_nobodys_slot():
    tables = BlockTables(BlockPool(80), block_size=BLOCK, prefix_cache=True)
    planner = Scheduler(
        tables, max_batch_tokens=4, max_running=3, max_waiting=9, max_waiting_tokens=10_000
    )
    shared = list(range(1, 33))
    planner.add(sequence(shared, client_id="b"))
    for start in (40, 41):
        planner.add(sequence([start, 2, 3], client_id="a", max_tokens=60))
    planner.schedule()
    assert sorted(admitted(planner)) == ["a", "a", "b"]
    planner.add(sequence(shared, client_id="b"))
    carry_out(planner, planner.schedule())
    assert planner.num_preemptions == 0


def fill(planner: Scheduler, prompt: int) -> None:
    """With requests of one client, until they are refused."""
    with contextlib.suppress(Overloaded):
        for _ in range(40):
            planner.add(sequence(prompt, client_id="a"))


def test_a_named_client_leaves_places_in_the_queue_for_others():
    planner = scheduler(blocks=80, max_running=1, max_waiting=16, max_waiting_tokens=160)
    fill(planner, 2)
    assert len(planner.waiting) == 14
    planner.add(sequence(2, client_id="b"))
    planner.add(sequence(2, client_id="c"))
    with pytest.raises(Overloaded):
        planner.add(sequence(2, client_id="d"))


def test_a_named_client_leaves_room_for_others_prompts():
    planner = scheduler(blocks=80, max_running=1, max_waiting=50, max_waiting_tokens=160)
    fill(planner, 10)
    assert 10 < len(planner.waiting) < 16
    planner.add(sequence(10, client_id="b"))


@examples(60)
@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=40), st.integers(2, 6), st.randoms())
def test_no_client_waits_while_another_holds_two_more_slots_than_it(
    arrivals: list[str], slots: int, chance: Random
):
    planner = scheduler(blocks=400, max_running=slots, max_waiting=400, max_batch_tokens=32)
    for client in arrivals:
        planner.add(sequence(2, client_id=client, max_tokens=chance.randint(1, 9)))
        for _ in range(chance.randint(0, 2)):
            carry_out(planner, planner.schedule())
    for _ in range(2 * slots):  # each step shares out one slot
        planner.schedule()
    held = {client: admitted(planner).count(client) for client in arrivals}
    for client in {one.client_id for one in planner.waiting}:
        assert max(held.values()) - held[client] < 2
    steps_until(planner, lambda: not planner.running and not planner.waiting)


def test_a_client_that_holds_every_block_gives_some_back():
    planner = scheduler(blocks=16, max_running=8, max_waiting=20)
    for _ in range(4):
        planner.add(sequence(11, client_id="a", max_tokens=30))
    while planner.tables.blocks.num_available:
        carry_out(planner, planner.schedule())
    assert set(admitted(planner)) == {"a"}
    planner.add(sequence(11, client_id="b", max_tokens=4))
    for _ in range(12):
        if "b" in admitted(planner):
            break
        carry_out(planner, planner.schedule())
    assert "b" in admitted(planner)
    steps_until(planner, lambda: not planner.running and not planner.waiting)


def rows_of(plan: list[Slice]) -> dict[str, int]:
    """Rows of a step by client."""
    rows: dict[str, int] = {}
    for part in plan:
        client = part.sequence.client_id
        rows[client] = rows.get(client, 0) + part.num_tokens
    return rows


def test_clients_share_the_rows_of_a_step_however_many_prompts_each_has():
    planner = scheduler(blocks=2000, max_batch_tokens=60, max_running=30, max_waiting=40)
    for _ in range(20):
        planner.add(sequence(200, client_id="a"))
    planner.add(sequence(300, client_id="b"))
    planner.add(sequence(300, client_id="c"))
    assert rows_of(planner.schedule()) == {"a": 20, "b": 20, "c": 20}


def test_what_a_client_does_not_need_of_its_share_goes_to_the_others():
    planner = scheduler(blocks=2000, max_batch_tokens=60, max_running=30, max_waiting=40)
    planner.add(sequence(6, client_id="b"))
    for _ in range(5):
        planner.add(sequence(200, client_id="a"))
    planner.add(sequence(300, client_id="c"))
    assert rows_of(planner.schedule()) == {"a": 27, "b": 6, "c": 27}


def test_within_its_share_a_client_has_the_oldest_and_the_shortest_prompts_served():
    planner = scheduler(blocks=2000, max_batch_tokens=40, max_running=30, max_waiting=40)
    old, longer, short = (sequence(n, client_id="a") for n in (200, 100, 4))
    other = sequence(300, client_id="b")
    for one in (old, longer, short, other):
        planner.add(one)
    rows = {part.sequence.arrival: part.num_tokens for part in planner.schedule()}
    assert rows == {
        old.arrival: 10,
        short.arrival: 4,
        longer.arrival: 6,
        other.arrival: 20,
    }


def test_another_clients_short_prompts_cannot_hold_up_a_longer_one():
    """Neither the oldest nor the shortest, and yet served in every step."""
    planner = scheduler(blocks=4000, max_batch_tokens=64, max_running=32, max_waiting=64)
    planner.add(sequence(5000, client_id="a", max_tokens=1))
    mine = sequence(320, client_id="b", max_tokens=1)
    planner.add(mine)
    steps = 0
    while not mine.output_ids:
        while sum(one.client_id == "a" for one in planner.waiting) < 20:
            planner.add(sequence(40, client_id="a", max_tokens=1))
        carry_out(planner, planner.schedule())
        steps += 1
        assert steps <= 10 + 1


@examples(60)
@given(
    budget=st.integers(4, 40), running=st.integers(2, 8), chance=st.randoms(use_true_random=False)
)
def test_rows_are_shared_out_whole_and_evenly(budget: int, running: int, chance: Random):
    """No row is left while a prompt could take it; no client has two more than one that wants
    more; and the client with the oldest prompt gets a row in every step."""
    planner = scheduler(blocks=4000, max_batch_tokens=budget, max_running=running, max_waiting=400)
    for _ in range(chance.randint(1, 30)):
        for _ in range(chance.randint(0, 3)):
            client = chance.choice("aaaabcd")
            planner.add(
                sequence(chance.randint(1, 90), client_id=client, max_tokens=chance.randint(1, 5))
            )
        plan = planner.schedule()
        pending = {one.arrival: one.num_pending for one in planner.running}
        given_rows = {part.sequence.arrival: part.num_tokens for part in plan}
        wanted = sum(pending.values())
        assert sum(given_rows.values()) == min(wanted, budget)
        assert all(part.num_tokens >= 1 for part in plan)
        prompts = [one for one in planner.running if one.num_pending > 1]
        got = dict.fromkeys((one.client_id for one in prompts), 0)
        want = dict(got)
        for one in prompts:
            got[one.client_id] += given_rows.get(one.arrival, 0)
            want[one.client_id] += one.num_pending
        for client in got:
            if got[client] < want[client]:
                assert max(got.values()) - got[client] <= 1
        if prompts:
            assert min(prompts, key=lambda one: one.arrival).arrival in given_rows
        carry_out(planner, plan)
    steps_until(planner, lambda: not planner.running and not planner.waiting)


@examples(40)
@given(
    mine=st.integers(2, 300),
    clients=st.integers(1, 4),
    budget=st.integers(16, 60),
    chance=st.randoms(use_true_random=False),
)
def test_a_clients_only_prompt_waits_for_its_share_of_the_rows_at_most(
    mine: int, clients: int, budget: int, chance: Random
):
    """Whatever so many other clients keep sending."""
    planner = scheduler(blocks=9000, max_batch_tokens=budget, max_running=8, max_waiting=400)
    names = "bcde"[:clients]

    def keep_busy() -> None:
        for name in names:
            while sum(one.client_id == name for one in planner.waiting) < 4:
                planner.add(
                    sequence(chance.randint(1, 60), client_id=name, max_tokens=chance.randint(1, 9))
                )

    keep_busy()
    carry_out(planner, planner.schedule())
    own = sequence(mine, client_id="a")
    planner.add(own)
    steps = 0
    while not own.output_ids:
        keep_busy()
        carry_out(planner, planner.schedule())
        steps += 1
        # One step may pass before a slot is given up for it.
        assert steps <= 2 + -(-mine // ((budget - 7) // (clients + 1)))


def test_who_runs_most_pays_for_blocks_and_not_who_came_last():
    planner = scheduler(blocks=16, max_batch_tokens=64, max_running=8, max_waiting=20)
    crowd = [sequence(11, client_id="a", max_tokens=30) for _ in range(3)]
    mine = sequence(3, client_id="b", max_tokens=12)
    for one in (*crowd, mine):
        planner.add(one)
    while len(mine.output_ids) < 12:
        carry_out(planner, planner.schedule())
        assert mine in planner.running or len(mine.output_ids) == 12
        assert crowd[0] in planner.running
    assert planner.num_preemptions > 0
