"""Which client is served next, and which is refused, when clients share a queue."""

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpc.errors import Overloaded
from rpc.fair_shares import FairSlots, equal_shares, may_wait
from tests.support.examples import examples


class World:
    """Clients that ask for slots; what is served is noted in order."""

    def __init__(self, slots: int = 2, most: int = 64):
        self.slots = FairSlots(slots, max_waiting=most, what="things")
        self.served: list[str] = []
        self.running: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.refused: list[str] = []

    async def ask(self, client: str) -> asyncio.Task[None]:
        async def wait() -> None:
            try:
                await self.slots.acquire(client)
            except Overloaded:
                self.refused.append(client)
                return
            self.served.append(client)
            self.running.append(client)

        task = asyncio.create_task(wait())
        self.tasks.append(task)
        await settle()
        return task

    async def finish(self, index: int = 0) -> None:
        self.slots.release(self.running.pop(index))
        await settle()


async def settle() -> None:
    for _ in range(4):
        await asyncio.sleep(0)


async def test_a_newcomer_never_waits_for_the_busiest_one():
    world = World()
    for _ in range(40):
        await world.ask("a")
    assert world.running == ["a"]  # the other slot is for others
    await world.ask("b")
    assert world.running == ["a", "b"]


async def test_all_wait_for_one_slot_at_most_before_their_turn():
    world = World()
    for client in ["a"] * 20 + ["b"] * 20 + ["c"]:
        await world.ask(client)
    assert world.running == ["a", "b"]
    await world.finish()
    assert world.running == ["b", "c"]  # one finished, and c is served
    for _ in range(6):
        await world.finish()
    assert world.served[3:] == ["a", "b"] * 3
    assert world.slots._turns._last_turn.keys() <= {"a", "b"}  # clients that left are forgotten


async def test_who_gives_up_leaves_its_place_and_never_keeps_a_slot():
    world = World()
    await world.ask("a")
    await world.ask("b")
    gone = await world.ask("c")
    await world.ask("d")
    gone.cancel()
    await settle()
    assert world.slots.num_waiting == 1
    late = await world.ask("e")
    world.slots.release(world.running.pop(0))  # d's turn is set
    world.slots.release(world.running.pop(0))  # and e's
    late.cancel()  # in the same tick
    await settle()
    assert world.running == ["d"]
    await world.ask("f")
    assert world.running == ["d", "f"]


async def test_one_client_cannot_fill_the_queue():
    world = World(most=16)
    for _ in range(40):
        await world.ask("a")
    assert world.slots.num_waiting == 14
    await world.ask("b")
    await world.ask("c")
    assert "b" in world.running
    assert not {"b", "c"} & set(world.refused)


@given(st.integers(0, 300), st.integers(0, 300), st.integers(1, 300), st.integers(1, 50))
def test_no_more_than_all_places_are_given(own: int, others: int, most: int, adding: int):
    if may_wait(own, own + others, most, adding):
        assert own + others + adding <= most


def test_one_alone_gets_seven_eighths_and_the_rest_is_for_the_next():
    own = 0
    while may_wait(own, own, 256):
        own += 1
    assert own == 224
    assert may_wait(0, 255, 256)
    assert not may_wait(0, 256, 256)


@examples(150)
@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 3)), max_size=60), st.integers(2, 4)
)
def test_slots_are_never_idle_nor_held_by_one_alone(moves: list[tuple[str, int]], num_slots: int):
    """`moves`: a client asks, then this many of the running ones finish."""

    async def play() -> None:
        world = World(num_slots, most=100)
        for client, done in moves:
            await world.ask(client)
            for _ in range(min(done, len(world.running))):
                await world.finish()
            held = Counter(world.running)
            assert held.total() <= num_slots
            assert all(count <= num_slots - 1 for count in held.values())
            if world.slots.num_waiting and held.total() < num_slots:
                assert set(world.slots._turns._waiting) == {
                    c for c, count in held.items() if count == num_slots - 1
                }
        while world.running:
            await world.finish()
        assert world.slots.num_waiting == 0
        assert len(world.served) == len(moves)
        await asyncio.gather(*world.tasks)

    asyncio.run(play())


async def test_the_refusal_says_what_is_waiting():
    slots = FairSlots(2, max_waiting=1, what="grammars")
    await slots.acquire("a")
    waiting = asyncio.create_task(slots.acquire("a"))
    await settle()
    with pytest.raises(Overloaded, match="too many grammars"):
        await slots.acquire("a")
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


@given(st.dictionaries(st.text(max_size=2), st.integers(0, 50), max_size=8), st.integers(0, 200))
def test_equal_shares_give_out_all_that_is_wanted_and_no_one_more_than_another(
    wanted: dict[str, int], total: int
):
    shares = equal_shares(wanted, total)
    assert list(shares) == list(wanted)
    assert sum(shares.values()) == min(total, sum(wanted.values()))
    short = [share for client, share in shares.items() if share < wanted[client]]
    for client, share in shares.items():
        assert 0 <= share <= wanted[client]
        assert share - min(short, default=share) <= 1
    assert short == sorted(short, reverse=True), "what cannot be divided goes to the first"
