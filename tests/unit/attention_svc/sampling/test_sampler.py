"""Sampling: every control against its naive formula, every row on its own."""

import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attention_svc.sampling import sampler
from attention_svc.sampling.sampler import SamplingFailed
from attention_svc.sequence.sequence import EmittedToken, Sequence
from tests.support.attention_svc.sequences import VOCAB, sequence
from tests.support.examples import examples

NAN, INF = float("nan"), float("inf")


def noise(rows: int, seed: int = 0, vocab: int = VOCAB) -> torch.Tensor:
    return 3 * torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed))


def sample(logits: torch.Tensor, sequences: list[Sequence]) -> list[EmittedToken | SamplingFailed]:
    """Sample a copy: the sampler overwrites its logits."""
    return sampler.sample(logits.contiguous().clone(), sequences)


def pick(logits: torch.Tensor, one: Sequence) -> int:
    (token,) = sample(logits[None], [one])
    assert isinstance(token, EmittedToken)
    return token.token_id


def drawn(logits: torch.Tensor, count: int, **fields: object) -> Counter[int]:
    """How often each id comes in `count` draws with seeds 0..count-1, in one batch."""
    sequences = [sequence(seed=seed, **{"temperature": 1.0, **fields}) for seed in range(count)]
    tokens = sample(logits.expand(count, -1), sequences)
    return Counter(token.token_id for token in tokens if isinstance(token, EmittedToken))


@pytest.mark.parametrize("temperature", [0.0, -0.0, 1e-9, 9e-6])
def test_temperature_zero_and_tiny_are_greedy_and_ties_go_to_the_lower_id(temperature: float):
    logits = torch.zeros(VOCAB)
    logits[[7, 30]] = 5.0
    assert pick(logits, sequence(temperature=temperature, seed=3)) == 7
    assert pick(torch.zeros(VOCAB), sequence(temperature=temperature)) == 0


def test_the_smallest_temperature_above_greedy_divides_without_overflow():
    logits = torch.full((VOCAB,), -3e4)
    logits[11] = 3e4
    assert pick(logits, sequence(temperature=1e-5)) == 11


def allowed_ids(
    logits: torch.Tensor, *, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0
) -> list[int]:
    """The candidates, by the definition: top_k, then top_p and min_p of what is left."""
    order = sorted(range(len(logits)), key=lambda i: (-float(logits[i]), i))
    if top_k:
        order = order[:top_k]
    weights = [math.exp((float(logits[i]) - float(logits[order[0]])) / temperature) for i in order]
    probs = [w / sum(weights) for w in weights]
    kept, before = [], 0.0
    for i, p in zip(order, probs, strict=True):
        if not kept or (before < top_p and p >= min_p * probs[0]):
            kept.append(i)
        before += p
    return kept


@pytest.mark.parametrize(
    "controls",
    [
        *({"top_k": value} for value in (1, 5, VOCAB, VOCAB + 1, 2**32 - 1)),
        *({"top_p": value} for value in (1e-12, 0.5, 0.9)),
        *({"min_p": value} for value in (1.0, 0.1)),
        {"top_k": 4, "top_p": 0.7},
        {"top_k": 10, "top_p": 0.8, "min_p": 0.05},
        {"temperature": 0.3, "top_p": 0.95},
        {"temperature": 2.0, "top_k": 8},
    ],
)
def test_only_the_defined_candidates_are_ever_drawn_and_all_of_them_are(controls: dict):
    logits = noise(1, seed=4)[0]
    allowed = allowed_ids(logits, **controls)
    seen = drawn(logits, 1500, **controls)
    assert set(seen) <= set(allowed)
    temperature = controls.get("temperature", 1.0)
    weights = {i: math.exp(float(logits[i] - logits[allowed[0]]) / temperature) for i in allowed}
    likely = {i for i, w in weights.items() if w / sum(weights.values()) > 0.01}
    assert likely <= set(seen)


@given(
    st.floats(0.125, 3, width=32),
    st.lists(st.integers(0, VOCAB - 1), max_size=12),
    st.integers(0, 99),
)
@examples(40)
def test_repetition_penalty_shrinks_what_was_seen(penalty: float, output: list[int], seed: int):
    logits = noise(1, seed=seed)[0]
    expected = logits.clone()
    for i in {3, *output}:
        expected[i] = logits[i] / penalty if logits[i] > 0 else logits[i] * penalty
    got = pick(logits, sequence([3], output, repetition_penalty=penalty, max_tokens=20))
    assert expected[got] == expected.max()


@given(
    st.floats(-2, 2, width=32), st.floats(-2, 2, width=32), st.lists(st.integers(0, 8), max_size=12)
)
@examples(40)
def test_presence_and_frequency_penalties_count_the_output_only(
    presence: float, frequency: float, output: list[int]
):
    logits = noise(1, seed=1)[0]
    expected = logits.clone()
    for i, times in Counter(output).items():
        expected[i] -= presence + frequency * times
    one = sequence(
        [5, 5, 6], output, presence_penalty=presence, frequency_penalty=frequency, max_tokens=20
    )
    assert math.isclose(expected[pick(logits, one)], expected.max(), abs_tol=1e-5)


def test_logit_bias_moves_and_bans():
    logits = noise(1)[0]
    best = int(logits.argmax())
    assert pick(logits, sequence(logit_bias={9: 100.0})) == 9
    assert pick(logits, sequence(logit_bias={best: -100.0})) != best
    huge = logits.clone()
    huge[4] = 1e6
    assert pick(huge, sequence(logit_bias={4: -100.0})) != 4  # a ban, not a subtraction
    assert set(drawn(logits, 200, logit_bias=dict.fromkeys(range(VOCAB - 1), -100.0))) == {
        VOCAB - 1
    }


def test_only_allowed_ids_are_sampled():
    logits = noise(1)[0]
    some = [int(logits.argmin()), 7, 7, 30]
    assert pick(logits, sequence(allowed_token_ids=some)) == max(some, key=lambda i: logits[i])
    assert set(drawn(logits, 300, allowed_token_ids=[3, 9])) == {3, 9}
    both = sequence(allowed_token_ids=[3, 9], logit_bias={3: 100.0, 9: -100.0, 5: 100.0})
    assert pick(logits, both) == 3
    assert isinstance(
        sample(logits[None], [sequence(allowed_token_ids=[4], logit_bias={4: -100.0})])[0],
        SamplingFailed,
    )


def test_draws_among_allowed_ids_are_those_of_a_vocabulary_without_the_others():
    logits = noise(1, seed=6)[0]
    some = [2, 11, 40]
    alone = torch.full((VOCAB,), -INF)
    alone[some] = logits[some]
    for seed in range(50):
        fields = {"temperature": 1.0, "top_p": 0.9, "seed": seed}
        plain = sequence(logit_bias=dict.fromkeys(set(range(VOCAB)) - set(some), -100.0), **fields)
        assert pick(logits, sequence(allowed_token_ids=some, **fields)) == pick(logits, plain)


@given(
    st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=4), min_size=1, max_size=6),
    st.integers(0, 9),
)
@examples(60)
def test_banned_sequences_never_occur_and_nothing_else_is_lost(banned: list[list[int]], seed: int):
    """Against the definition: an id is out exactly where it would complete one of them."""
    sequences = [{"token_ids": one} for one in banned]
    output: list[int] = []
    for step in range(8):
        logits = noise(1, seed=10 * seed + step, vocab=5)[0]
        ends = {one[-1] for one in banned if (output + one[-1:])[-len(one) :] == one}
        expected = max(set(range(5)) - ends, key=lambda i: logits[i])
        # The prompt does not count: it ends with what most of them begin with.
        row = sequence([0, 1, 2, 3], output, banned_sequences=sequences, max_tokens=9, vocab=5)
        assert pick(logits, row) == expected
        output.append(expected)


def test_stop_ids_cannot_come_before_min_tokens():
    logits = torch.zeros(VOCAB)
    logits[2] = 50.0
    held_back = sequence(1, [8], stop_ids=(2,), min_tokens=2)
    assert pick(logits, held_back) != 2
    held_back.output_ids.append(8)
    assert pick(logits, held_back) == 2


def test_all_tokens_masked_fails_that_row_only():
    logits = noise(3)
    ban = dict.fromkeys(range(VOCAB), -100.0)
    rows = [sequence(temperature=1.0), sequence(logit_bias=ban, temperature=1.0), sequence()]
    alone = [sample(logits[i : i + 1], [rows[i]])[0] for i in (0, 2)]
    first, failed, last = sample(logits, rows)
    assert isinstance(failed, SamplingFailed)
    assert "masked" in failed.reason
    assert [first, last] == alone
    greedy = sample(logits[1:2], [sequence(logit_bias=ban)])[0]
    assert isinstance(greedy, SamplingFailed)


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_nan_or_infinite_logits_fail_that_row_only(value: float, temperature: float):
    logits = noise(3)
    healthy = sample(logits[[0, 2]], [sequence(temperature=1.0, top_k=5), sequence()])
    logits[1, 17] = value
    first, failed, last = sample(
        logits, [sequence(temperature=1.0, top_k=5), sequence(temperature=temperature), sequence()]
    )
    assert isinstance(failed, SamplingFailed)
    assert "NaN" in failed.reason
    assert [first, last] == healthy
    (only,) = sample(torch.full((1, VOCAB), value), [sequence(temperature=temperature)])
    assert isinstance(only, SamplingFailed)


controls = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.sampled_from([0.0, 0.7, 1.0, 2.0]),
        "top_k": st.integers(0, VOCAB + 2),
        "top_p": st.floats(0.0625, 1, width=32),
        "min_p": st.floats(0, 1, width=32),
        "seed": st.integers(0, 2**64 - 1),
        "repetition_penalty": st.floats(0.5, 2, width=32),
        "frequency_penalty": st.floats(-2, 2, width=32),
        "min_tokens": st.integers(0, 8),
        "allowed_token_ids": st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=5),
        "banned_sequences": st.lists(
            st.lists(st.sampled_from([1, 2, 4]), min_size=1, max_size=3).map(
                lambda ids: {"token_ids": ids}
            ),
            max_size=4,
        ),
    },
)


@examples(60)
@given(st.lists(controls, min_size=2, max_size=6), st.booleans(), st.integers(0, 99))
def test_a_row_gets_the_same_token_alone_and_in_any_batch(many: list[dict], tied: bool, seed: int):
    logits = torch.zeros(len(many), VOCAB) if tied else noise(len(many), seed)
    sequences = [sequence(2, [1, 1], stop_ids=(2,), **fields) for fields in many]
    together = sample(logits, sequences)
    alone = [sample(logits[i : i + 1], [s])[0] for i, s in enumerate(sequences)]
    assert together == alone
    assert sample(logits.flip(0), sequences[::-1]) == together[::-1]


def test_ties_at_the_border_of_top_k_go_to_the_lower_ids_however_many():
    """More equal logits than the sampler's first selection holds."""
    vocab = 5000
    logits = torch.zeros(vocab)
    rows = [sequence(temperature=1.0, top_k=2, seed=seed, vocab=vocab) for seed in range(50)]
    tokens = sample(logits.expand(50, -1), rows)
    assert {token.token_id for token in tokens} == {0, 1}
    wide = sequence(temperature=1.0, top_k=40, vocab=vocab)
    assert sample(logits.expand(51, -1), [*rows, wide])[:50] == tokens


def test_seeds_choices_and_positions_draw_anew_and_repeat():
    logits = torch.zeros(VOCAB)

    def token(**fields: object) -> int:
        return pick(logits, sequence(**{"temperature": 1.0, "seed": 5, **fields}))

    assert len({token(seed=seed) for seed in range(40)}) > 10
    assert len({token(choice_idx=choice) for choice in range(40)}) > 10
    assert len({token(output=[1] * length, max_tokens=50) for length in range(40)}) > 10
    assert token() == token()


def test_logprobs_are_of_the_raw_distribution():
    logits = noise(1)[0]
    one = sequence(logprobs=True, top_logprobs=3, logit_bias={9: 100.0}, temperature=1.0)
    (token,) = sample(logits[None], [one])
    raw = torch.log_softmax(logits.double(), 0)
    assert isinstance(token, EmittedToken)
    assert token.token_id == 9
    assert math.isclose(token.logprob, float(raw[9]), abs_tol=1e-4)
    assert list(token.top_ids) == raw.topk(3).indices.tolist()
    for i, value in zip(token.top_ids, token.top_logprobs, strict=True):
        assert math.isclose(value, float(raw[i]), abs_tol=1e-4)
    (plain,) = sample(logits[None], [sequence(logprobs=True)])
    assert plain == EmittedToken(int(logits.argmax()), plain.logprob)
