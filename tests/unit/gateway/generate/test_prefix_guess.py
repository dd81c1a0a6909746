"""What does the gateway think a replica has cached, and which replica does it pick?"""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.generate.pool import MORE_LOADED, SEQUENCE_TOKENS, AttentionPool
from gateway.generate.prefix_guess import BLOCK_TOKENS, PrefixGuess, prompt_keys
from gateway.generate.replica import Replica

IDS = st.lists(st.integers(0, 3), max_size=100)


def common(a: list[int], b: list[int]) -> int:
    same = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)
    tokens = min(len(a), len(b)) if same is None else same
    return tokens // BLOCK_TOKENS * BLOCK_TOKENS


@given(st.lists(IDS, max_size=4), IDS)
def test_it_is_the_longest_common_prefix_in_whole_blocks(
    seen: list[list[int]], asked: list[int]
) -> None:
    guess = PrefixGuess()
    for ids in seen:
        guess.remember(prompt_keys("", ids))
    best = max((common(ids, asked) for ids in seen), default=0)
    assert guess.num_tokens(prompt_keys("", asked)) == best
    assert guess.num_tokens(prompt_keys("another tenant", asked)) == 0


def test_memory_is_bounded_and_heads_outlive_tails() -> None:
    guess = PrefixGuess()
    guess.set_capacity(4 * BLOCK_TOKENS)
    ids = list(range(100))
    guess.remember(prompt_keys("", ids))
    assert (len(guess), guess.num_tokens(prompt_keys("", ids))) == (4, 64)
    guess.remember(prompt_keys("", [7] * BLOCK_TOKENS))
    assert (len(guess), guess.num_tokens(prompt_keys("", ids))) == (4, 48)
    guess.forget()
    assert guess.num_tokens(prompt_keys("", ids)) == 0


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> AttentionPool:
    """Two ready replicas, a and b, without channels."""
    monkeypatch.setattr("gateway.generate.replica.open_channel", lambda *_, **__: FakeChannel())
    pool = AttentionPool(lambda: (), vocab_size=10, tls=None)
    for address in "ab":
        replica = Replica(address, None)
        replica.not_ready_reason = None
        pool._replicas[address] = replica
    return pool


class FakeChannel:
    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


def load(pool: AttentionPool, address: str, sequences: int) -> None:
    pool._replicas[address]._reported.running_sequences = sequences


PROMPT = list(range(1000))


def test_a_cached_prefix_outweighs_some_load(pool: AttentionPool) -> None:
    keys = prompt_keys("", PROMPT)
    assert pool.pick(1000, keys=keys).address == "a"  # and it is remembered there
    load(pool, "a", 1000 // SEQUENCE_TOKENS - 1)
    load(pool, "b", MORE_LOADED)  # a's load is within twice this and MORE_LOADED
    assert pool.pick(1000, keys=keys).address == "a"
    assert pool.pick(1000, keys=prompt_keys("another", PROMPT)).address == "b"


def test_a_much_more_loaded_replica_loses_in_spite_of_a_hit(pool: AttentionPool) -> None:
    keys = prompt_keys("", PROMPT)
    pool.pick(1000, keys=keys)
    load(pool, "a", MORE_LOADED + 1)
    assert pool.pick(1000, keys=keys).address == "b"


def test_a_short_hit_does_not_outweigh_one_sequence(pool: AttentionPool) -> None:
    keys = prompt_keys("", PROMPT[: SEQUENCE_TOKENS - 16])
    pool.pick(48, keys=keys)
    load(pool, "a", 1)
    assert pool.pick(48, keys=keys).address == "b"


def test_a_replica_that_is_lost_has_nothing_cached(pool: AttentionPool) -> None:
    keys = prompt_keys("", PROMPT)
    replica = pool.pick(1000, keys=keys)
    replica.mark_down("stopping", forget=False)
    assert replica.prefixes.num_tokens(keys) > 0
    replica.mark_down("lost", forget=True)
    assert replica.prefixes.num_tokens(keys) == 0
