"""Equal keys mean the same model, tenant and tokens from the first on."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from attention_svc.sequence.prefix_keys import prompt_keys, root_key

BLOCK = 4
TOKENS = st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=20)
ROOT = root_key("checkpoint", "")


@given(TOKENS, TOKENS)
def test_keys_agree_exactly_as_far_as_the_tokens_do(ours: list[int], theirs: list[int]):
    one, other = (prompt_keys(ROOT, ids, BLOCK) for ids in (ours, theirs))
    common = sum(
        1
        for _ in itertools.takewhile(
            lambda pair: pair[0] == pair[1], zip(ours, theirs, strict=False)
        )
    )
    agreed = [a == b for a, b in zip(one.blocks, other.blocks, strict=False)]
    assert agreed == [(index + 1) * BLOCK <= common for index in range(len(agreed))]
    if ours != theirs and one.tail and one.tail == other.tail:
        assert ours[:-1] == theirs[:-1]


@given(TOKENS, st.integers(0, 20))
def test_keys_extended_block_by_block_are_those_of_the_whole(ids: list[int], cut: int):
    whole = prompt_keys(ROOT, ids, BLOCK)
    parts = prompt_keys(ROOT, ids[: max(1, cut)], BLOCK)
    while len(parts.blocks) < len(whole.blocks):
        start = len(parts.blocks) * BLOCK
        parts.extend(ids[start : start + BLOCK])
    assert parts.blocks[: len(whole.blocks)] == whole.blocks


@given(TOKENS)
def test_the_tail_ends_before_the_last_prompt_token(ids: list[int]):
    keys = prompt_keys(ROOT, ids, BLOCK)
    assert keys.tail_block * BLOCK + keys.tail_rows == len(ids) - 1
    assert bool(keys.tail) == bool(keys.tail_rows)
    assert keys.tail not in keys.blocks


def test_roots_differ_by_checkpoint_and_salt_and_by_where_one_ends():
    pairs = [("a", ""), ("", "a"), ("a", "b"), ("ab", ""), ("b", "a"), ("", "")]
    assert len({root_key(*pair) for pair in pairs}) == len(pairs)
