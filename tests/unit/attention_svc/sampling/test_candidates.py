"""The best tokens of a row, found without sorting, are those that sorting finds."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attention_svc.sampling import drawing, logprobs
from attention_svc.sampling.candidates import Ranked, best, block_maxima, block_sums, ranked
from attention_svc.sampling.logprobs import RawDistribution
from attention_svc.sampling.sampler import sample
from attention_svc.sequence.sequence import EmittedToken
from tests.support.attention_svc.sequences import sequence
from tests.support.examples import examples

NEGATIVE_INFINITY = float("-inf")


def rows(count: int, vocab: int, seed: int, *, coarse: bool) -> torch.Tensor:
    """Noise; `coarse`: with many equal logits, some masked."""
    noise = 3 * torch.randn(count, vocab, generator=torch.Generator().manual_seed(seed))
    if not coarse:
        return noise
    return noise.round().masked_fill(noise < -4, NEGATIVE_INFINITY)


@examples(60)
@given(
    st.sampled_from([1, 50, 64, 65, 700, 4_129]),
    st.integers(1, 60),
    st.integers(0, 99),
    st.booleans(),
)
def test_ranks_that_are_sure_are_those_of_a_stable_sort(
    vocab: int, count: int, seed: int, coarse: bool
):
    logits = rows(3, vocab, seed, coarse=coarse)
    maxima = block_maxima(logits)
    found = ranked(logits, maxima, count)
    values, ids = logits.sort(dim=-1, descending=True, stable=True)
    for row in range(3):
        sure = int(found.sure_B[row])
        assert found.ids_BC[row, :sure].tolist() == ids[row, :sure].tolist()
        # As many as asked for are there, unless equal logits stand at the border.
        last = values[row, min(count, vocab) - 1]
        assert sure >= int((values[row] > last).sum())
    assert best(logits, maxima)[1].tolist() == ids[:, 0].tolist()


def test_a_rows_sum_does_not_depend_on_its_neighbours():
    values = torch.rand(9, 4_129)
    together = block_sums(values)
    assert all(block_sums(values[i : i + 1])[0] == together[i] for i in range(9))
    assert torch.allclose(together, values.double().sum(-1))


@pytest.mark.parametrize(
    "controls",
    [
        {},
        {"top_p": 0.9},
        {"min_p": 0.02},
        {"top_p": 0.6, "temperature": 2.0},
        {"top_k": 30, "top_p": 0.8},
    ],
)
def test_the_first_candidates_draw_what_the_whole_row_draws(
    controls: dict, monkeypatch: pytest.MonkeyPatch
):
    """However many candidates it takes, the token is the same."""
    logits = rows(40, 4_129, 5, coarse=False)
    logits[20:] = logits[20:].round()
    many = [sequence(vocab=4_129, seed=i, **{"temperature": 1.0, **controls}) for i in range(40)]
    results = []
    for candidates in ((4, 16, 64), (64,), (4_129,)):
        monkeypatch.setattr(drawing, "CANDIDATES", candidates)
        results.append(sample(logits.clone(), many))
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("controls", [{}, {"top_p": 0.99}, {"top_k": 2_000}])
def test_few_rows_are_ranked_in_full_at_once_and_their_tokens_are_the_same(
    controls: dict, monkeypatch: pytest.MonkeyPatch
):
    """Flat rows, which no part of the vocabulary decides, and rows with a large top_k: sorted all
    together they would take gigabytes of a card."""
    vocab, most = 4_129, 3 * 4_129 + 5
    logits = rows(20, vocab, 6, coarse=False) / 50
    many = [sequence(vocab=vocab, seed=i, **{"temperature": 2.0, **controls}) for i in range(20)]
    monkeypatch.setattr(drawing, "CANDIDATES", (4, 16, 64))
    together = sample(logits.clone(), many)
    sizes = []

    def spy(logits_BV: torch.Tensor, maxima_BN: torch.Tensor, count: int) -> Ranked:
        found = ranked(logits_BV, maxima_BN, count)
        sizes.append(found.ids_BC.numel())
        return found

    monkeypatch.setattr(drawing, "ranked", spy)
    monkeypatch.setattr(drawing, "RANKED_AT_ONCE", most)
    assert sample(logits.clone(), many) == together
    assert max(sizes) <= most


def test_ids_without_a_token_are_never_drawn_and_no_part_of_any_distribution():
    logits = torch.zeros(60, 50)
    missing = torch.tensor([3, 48, 49])
    logits[:, missing] = 9.0
    many = [sequence(temperature=1.0, seed=i, logprobs=True, top_logprobs=20) for i in range(59)]
    tokens = sample(logits, [*many, sequence(logit_bias={48: 100.0})], missing_ids=missing)
    ids = {token.token_id for token in tokens if isinstance(token, EmittedToken)}
    assert len(ids) > 10
    assert not ids & {3, 48, 49}
    first = tokens[0]
    assert isinstance(first, EmittedToken)
    assert not set(first.top_ids) & {3, 48, 49}
    assert first.logprob == pytest.approx(-torch.tensor(47.0).log().item(), abs=1e-5)


def test_top_logprobs_name_the_lower_ids_among_however_many_equals():
    logits = torch.zeros(2, 4_129)
    raw = RawDistribution(logits, [5, 0], copy=False)
    first, second = raw.of([7, 8])
    assert first.top_ids == (0, 1, 2, 3, 4)
    assert second.top_ids == ()


def test_only_rows_with_many_equals_are_ranked_in_full_for_top_logprobs_each_alone(
    monkeypatch: pytest.MonkeyPatch,
):
    logits = rows(5, 4_129, 8, coarse=False)
    logits[1::2] = 0
    expected = [row.topk(3).indices.tolist() for row in logits]
    expected[1::2] = [[0, 1, 2]] * 2
    sizes = []

    def spy(logits_BV: torch.Tensor, maxima_BN: torch.Tensor, count: int) -> Ranked:
        found = ranked(logits_BV, maxima_BN, count)
        sizes.append(found.ids_BC.numel())
        return found

    monkeypatch.setattr(logprobs, "ranked", spy)
    raw = RawDistribution(logits, [3] * 5, copy=False)
    assert [list(one.top_ids) for one in raw.of([0] * 5)] == expected
    assert max(sizes) == 4_129
