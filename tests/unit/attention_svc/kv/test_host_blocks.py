"""Evicted blocks are found by their keys and theirs only, within bounds, the oldest going first."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attention_svc.kv.block_pool import BlockPool
from attention_svc.kv.host_blocks import HostBlocks
from tests.support.attention_svc.kv_world import World, check_host

BLOCKS = 5


def host_of(num_slots: int) -> HostBlocks:
    return HostBlocks(num_slots, lambda blocks, tokens: True)


def kept(host: HostBlocks, *keys: bytes) -> int:
    slot = host.keep(keys)
    assert slot is not None
    return slot


def test_the_least_recently_used_slot_goes_first():
    host = host_of(3)
    a, b, c = (kept(host, key) for key in (b"a", b"b", b"c"))
    assert host.keep([b"a"]) is None  # evicted again: it is here, and the most recent now
    assert kept(host, b"d") == b
    assert (host.find(b"a"), host.find(b"b"), host.find(b"c"), host.find(b"d")) == (a, None, c, b)
    assert (host.num_used, host.num_moved_out) == (3, 4)


def test_what_is_read_back_is_kept_meanwhile_and_goes_before_the_rest_its_end_first():
    host = host_of(3)
    first, last, other = (kept(host, key) for key in (b"first", b"last", b"other"))
    with host.held([first, last]):
        assert kept(host, b"new") == other
        with host.held([other]):
            assert host.keep([b"newer"]) is None  # nothing can go
            assert host.find(b"newer") is None
    assert (host.find(b"first"), host.find(b"last")) == (first, last)
    assert [kept(host, key) for key in (b"x", b"y", b"z")] == [last, first, other]


def test_a_block_that_has_more_keys_by_now_is_copied_for_the_new_ones():
    host = host_of(4)
    tail = kept(host, b"tail")
    whole = kept(host, b"tail", b"full")
    assert (host.find(b"tail"), host.find(b"full")) == (tail, whole)
    host.forget()
    assert host.find(b"full") is None
    check_host(host)


def test_no_room_for_a_block_is_our_bug():
    with pytest.raises(ValueError, match="at least one"):
        host_of(0)


@given(
    moves=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 7)), max_size=80),
    num_slots=st.integers(1, 8),
)
def test_pool_and_host_match_a_plain_model(moves: list[tuple[int, int]], num_slots: int):
    """Content is a number; a key always stands for the content that was published under it."""
    pool, host = BlockPool(BLOCKS), host_of(num_slots)
    tables: list[list[int]] = []
    content: dict[int, int] = {}
    slots: dict[int, int] = {}
    meaning: dict[bytes, int] = {}
    evicted: set[bytes] = set()

    def evict(block: int, keys: list[bytes]) -> None:
        evicted.update(keys)
        slot = host.keep(keys)
        if slot is not None:
            slots[slot] = content[block]

    for step, (move, number) in enumerate(moves):
        key = b"%d" % number
        if move == 0:
            for block in (table := pool.take(number, evict) or []):
                content[block] = step * 10 + len(content)
            tables += [table] if table else []
        elif move == 1 and tables:
            pool.release(tables.pop(number % len(tables)))
        elif move == 2 and tables and key not in meaning:
            block = tables[number % len(tables)][-1]
            pool.publish(block, key)
            meaning[key] = content[block]
        elif move == 3:
            found, slot = pool.find(key), host.find(key)
            if found is None and slot is not None:
                with host.held([slot]):
                    table = pool.take(1, evict)
                if table is not None:
                    content[table[0]] = slots[slot]
                    pool.publish(table[0], key)
                    tables.append(table)
        elif move == 4 and number == 0 and pool.forget():
            host.forget()
            meaning.clear()
            evicted.clear()
        check_host(host)
        for known, expected in meaning.items():
            block, slot = pool.find(known), host.find(known)
            assert block is None or content[block] == expected
            assert slot is None or slots[slot] == expected
            # Nothing is lost while there is room.
            assert block is not None or slot is not None or host.num_used == num_slots
        assert set(host._slot_of) <= evicted


class TestInSequences:
    """Two prompts that do not fit at once: 12 blocks of 4, of which a prompt takes 8."""

    ONE, OTHER = [1] * 30, [2] * 30

    def world(self, slots: int = 20, pays: bool = True) -> World:
        return World(blocks=12, budget=40, running=4, slots=slots, pays=lambda blocks, tokens: pays)

    def served(self, world: World, prompt: list[int], salt: str = "") -> int:
        """Cached positions of the prompt. The world checks that every row read is its own."""
        made = world.arrive(prompt, 1, salt)
        assert made
        world.finish()
        assert made.num_cached is not None
        return made.num_cached

    def test_a_prompt_that_was_evicted_is_read_back_and_not_computed(self):
        world = self.world()
        assert [self.served(world, prompt) for prompt in (self.ONE, self.OTHER)] == [0, 0]
        before = world.num_rows
        assert self.served(world, self.ONE) == 29
        assert world.num_rows == before + 1
        assert world.host is not None
        assert world.host.num_saved_tokens > 0
        assert world.host.num_read_back <= 8

    @pytest.mark.parametrize("world", [{"slots": 0}, {"pays": False}], ids=str)
    def test_without_host_memory_or_where_it_does_not_pay_it_is_computed(self, world):
        world = self.world(**world)
        for prompt in (self.ONE, self.OTHER):
            self.served(world, prompt)
        assert self.served(world, self.ONE) < 29

    def test_tenants_share_nothing(self):
        world = self.world()
        self.served(world, self.ONE, "a")
        self.served(world, self.OTHER, "a")
        assert self.served(world, self.ONE, "b") == 0
        assert self.served(world, self.OTHER, "b") == 0
        assert self.served(world, self.ONE, "a") == 29

    def test_with_too_few_slots_the_beginning_is_what_is_kept(self):
        world = self.world(slots=3)
        self.served(world, self.ONE)
        self.served(world, self.OTHER)
        assert 0 < self.served(world, self.ONE) < 29

    def test_a_preempted_sequence_reads_back_what_it_computed(self):
        world = self.world()
        made = world.arrive(self.ONE, 6)
        assert made
        for _ in range(3):
            world.step()
        world.preempt(made)
        world.scheduler.waiting.clear()  # until another prompt has taken its blocks
        world.alive.remove(made)
        self.served(world, self.OTHER)
        world.scheduler.waiting.append(made)
        world.alive.append(made)
        (part,) = world.step()
        assert part.num_tokens == 1
        assert made.num_cached == 0  # what it computed itself is no hit
        world.finish()

    def test_what_is_read_back_for_one_is_shared_by_those_that_wait_for_it(self):
        world = self.world()
        self.served(world, self.ONE)
        self.served(world, self.OTHER)
        both = [world.arrive(self.ONE, 1) for _ in range(2)]
        before = world.num_rows
        world.finish()
        assert [made and made.num_cached for made in both] == [29, 29]
        assert world.num_rows == before + 2
        assert world.host is not None
        assert world.host.num_read_back <= 8

    def test_a_step_that_fails_leaves_nothing_unread_in_the_cache(self):
        world = self.world()
        self.served(world, self.ONE)
        self.served(world, self.OTHER)
        world.arrive(self.ONE, 1)
        world.step(fails=True)
        assert self.served(world, self.ONE) == 29

    def test_forgetting_forgets_both(self):
        world = self.world()
        self.served(world, self.ONE)
        self.served(world, self.OTHER)
        assert world.tables.forget()
        assert world.host is not None
        assert world.host.num_used == 0
        assert self.served(world, self.ONE) == 0

    def test_while_a_request_runs_nothing_is_forgotten(self):
        world = self.world()
        self.served(world, self.ONE)
        self.served(world, self.OTHER)
        world.arrive([3] * 10, 5)
        world.step()
        assert not world.tables.forget()
        world.finish()
        assert self.served(world, self.ONE) == 29
