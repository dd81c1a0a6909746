"""read_params refuses what the proto does not allow; random numbers are a fixed function."""

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attention_svc.sampling.random_numbers import uniform
from attention_svc.sequence.params import MAX_LOGIT_BIAS, MAX_STOP_IDS, read_params
from protos import attention_pb2
from protos.sampling_ranges import MAX_ALLOWED_TOKEN_IDS, MAX_BANNED_SEQUENCES, MAX_BANNED_TOKENS
from tests.support.attention_svc.sequences import VOCAB, message, params

NAN, INF = float("nan"), float("inf")

REFUSED = (
    [("temperature", {"temperature": v}) for v in (-1.0, -1e-6, 2.0001, 1e9, NAN, INF, -INF)]
    + [("top_p", {"top_p": v}) for v in (0.0, -1.0, 1.0001, NAN, INF)]
    + [("min_p", {"min_p": v}) for v in (-0.1, 1.1, NAN)]
    + [("repetition_penalty", {"repetition_penalty": v}) for v in (0.0, -1.0, 1e9, NAN, INF)]
    + [("presence_penalty", {"presence_penalty": v}) for v in (-2.1, 2.1, NAN)]
    + [("frequency_penalty", {"frequency_penalty": v}) for v in (-2.1, 2.1, INF)]
    + [
        ("min_tokens", {"max_tokens": 4, "min_tokens": 5}),
        ("stop_token_ids", {"stop_token_ids": [1] * (MAX_STOP_IDS + 1)}),
        ("token id", {"stop_token_ids": [VOCAB]}),
        ("token id", {"logit_bias": {2**32 - 1: 1.0}}),
        ("token id", {"logit_bias": {VOCAB: 1.0}}),
        ("logit_bias", {"logit_bias": {1: 100.5}}),
        ("logit_bias", {"logit_bias": {1: -1000.0}}),
        ("logit_bias", {"logit_bias": {1: NAN}}),
        ("allowed_token_ids", {"allowed_token_ids": [1] * (MAX_ALLOWED_TOKEN_IDS + 1)}),
        ("token id", {"allowed_token_ids": [VOCAB]}),
        ("banned_sequences", {"banned_sequences": [{"token_ids": []}]}),
        ("banned_sequences", {"banned_sequences": [{"token_ids": [1] * (MAX_BANNED_TOKENS + 1)}]}),
        (
            "banned_sequences",
            {"banned_sequences": [{"token_ids": [1]}] * (MAX_BANNED_SEQUENCES + 1)},
        ),
        ("token id", {"banned_sequences": [{"token_ids": [1, VOCAB]}]}),
        ("top_logprobs", {"top_logprobs": 21}),
        ("top_logprobs", {"top_logprobs": 2**32 - 1}),
    ]
)


@pytest.mark.parametrize("name, fields", REFUSED)
def test_a_value_beyond_its_range_is_refused_by_name(name: str, fields: dict):
    with pytest.raises(ValueError, match=name) as error:
        params(**fields)
    assert str(error.value).startswith("sampling")
    assert len(str(error.value)) < 300


def test_too_many_biases_are_refused():
    made = message()
    for i in range(MAX_LOGIT_BIAS + 1):
        made.logit_bias.add(token_id=i % VOCAB, bias=0.0)
    with pytest.raises(ValueError, match=f"{MAX_LOGIT_BIAS} logit_bias"):
        read_params(made, VOCAB)


def test_the_edges_themselves_are_served():
    edges = {
        "temperature": 2.0,
        "top_p": 1.0,
        "top_k": 2**32 - 1,
        "min_p": 1.0,
        "presence_penalty": -2.0,
        "frequency_penalty": 2.0,
        "max_tokens": 2**32 - 1,
        "min_tokens": 2**32 - 1,
        "seed": 2**64 - 1,
        "stop_token_ids": [VOCAB - 1] * MAX_STOP_IDS,
        "logit_bias": {0: -100.0, VOCAB - 1: 100.0},
        "top_logprobs": 20,
    }
    made = params(**edges)
    assert (made.seed, made.top_k) == (2**64 - 1, 2**32 - 1)
    assert made.stop_token_ids == {VOCAB - 1}
    assert params(temperature=1e-9).is_greedy
    assert not params(temperature=0.01).is_greedy


def test_an_empty_message_is_refused():
    with pytest.raises(ValueError, match="top_p"):
        read_params(attention_pb2.SamplingParams(), VOCAB)


u64, u32 = st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1)


@given(u64, u32, u32)
def test_uniform_is_in_range_and_repeats(seed: int, choice: int, index: int):
    value = uniform(seed, choice, index)
    assert 0.0 <= value < 1.0
    assert value == uniform(seed, choice, index)


KNOWN = {
    (0, 0, 0): 0.33805245419550545,
    (0, 0, 1): 0.2691302712263999,
    (1, 0, 0): 0.4327449275927212,
    (0, 1, 0): 0.11260056966858045,
    (2**64 - 1, 2**32 - 1, 2**32 - 1): 0.7257518747258456,
    (1234567, 3, 1000): 0.21133727169702943,
}


def test_known_numbers_never_change():
    """A stream moved to another version must go on with the same tokens."""
    assert [uniform(*args) for args in KNOWN] == list(KNOWN.values())


def test_no_two_of_many_draws_collide():
    draws = {
        uniform(seed, choice, index)
        for seed in (*range(40), 2**63, 2**64 - 1)
        for choice in range(8)
        for index in range(100)
    }
    assert len(draws) == 42 * 8 * 100


def test_draws_are_even_in_every_direction():
    """Mean and lag-one correlation along seed, choice and index."""
    size = 20_000
    for direction in range(3):
        at = [[0, 0, 0] for _ in range(size)]
        for i, args in enumerate(at):
            args[direction] = i
        values = [uniform(*args) for args in at]
        mean = sum(values) / size
        assert abs(mean - 0.5) < 0.01
        lag = sum((a - 0.5) * (b - 0.5) for a, b in itertools.pairwise(values)) / size
        assert abs(lag) < 0.003
        tenths = Counter(int(10 * value) for value in values)
        assert all(abs(tenths[tenth] / size - 0.1) < 0.01 for tenth in range(10))
