"""A block is free, used or cached; references and keys are exact."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attention_svc.kv.block_pool import BlockPool

BLOCKS = 7


def test_what_is_cached_is_forgotten_when_nothing_is_used():
    pool = BlockPool(3)
    table = pool.take(2)
    assert table is not None
    pool.publish(table[0], b"a")
    assert not pool.forget()
    assert pool.find(b"a") == table[0]
    pool.release(table)
    assert pool.forget()
    assert pool.find(b"a") is None
    assert (pool.num_available, len(pool.take(3) or ())) == (3, 3)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5)), max_size=60))
def test_references_keys_and_states_match_a_plain_model(moves: list[tuple[int, int]]):
    pool = BlockPool(BLOCKS)
    tables: list[list[int]] = []
    keys: dict[bytes, int] = {}
    for move, number in moves:
        if move == 0:
            taken = pool.take(number)
            in_use = {block for table in tables for block in table}
            assert (taken is None) == (number > BLOCKS - len(in_use))
            if taken:
                assert not in_use & set(taken)
                keys = {key: block for key, block in keys.items() if block not in taken}
                tables.append(taken)
        elif move == 1 and tables:
            pool.release(tables.pop(number % len(tables)))
            used = {block for table in tables for block in table}
            kept = {keys[key] for key in keys} | used
            keys = {key: block for key, block in keys.items() if block in kept}
        elif move == 2 and tables:
            block = tables[number % len(tables)][0]
            key = b"%d" % number
            pool.publish(block, key)
            keys.setdefault(key, block)
        elif move == 3:
            found = pool.find(b"%d" % number)
            assert found == keys.get(b"%d" % number)
            if found is not None:
                pool.share(found)
                tables.append([found])
        for block in range(BLOCKS):
            assert pool._references[block] == sum(table.count(block) for table in tables)
        assert pool.num_used == len({block for table in tables for block in table})


def test_the_least_recently_used_is_taken_first_and_the_end_of_a_table_before_its_start():
    pool = BlockPool(4)
    old, new = pool.take(2), pool.take(2)
    assert old
    assert new
    for block in (*old, *new):
        pool.publish(block, b"%d" % block)
    pool.release(old)
    pool.release(new)
    pool.share(old[0])  # used again: now the most recent
    pool.release([old[0]])
    assert pool.take(4) == [old[1], new[1], new[0], old[0]]
    assert all(pool.find(b"%d" % block) is None for block in range(4))


def test_a_block_given_back_twice_is_our_bug():
    pool = BlockPool(2)
    blocks = pool.take(2)
    assert blocks is not None
    pool.release(blocks)
    with pytest.raises(AssertionError, match="twice"):
        pool.release(blocks)
    with pytest.raises(AssertionError, match="free block"):
        pool.share(blocks[0])
    with pytest.raises(AssertionError, match="nobody uses"):
        pool.publish(blocks[0], b"k")
    with pytest.raises(ValueError, match="at least one"):
        BlockPool(0)
