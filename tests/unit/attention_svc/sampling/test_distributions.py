"""What is drawn follows the distribution that each control defines: chi-square, with fixed seeds.

The reference is the definition, one token at a time; the sampler sees 3,000 rows at once.
"""

import math
from collections import Counter

import pytest
import torch

from attention_svc.sampling.sampler import sample
from attention_svc.sequence.sequence import EmittedToken
from tests.support.attention_svc.sequences import VOCAB, sequence

COUNT = 3_000
OUTPUT = [4, 4, 4, 9, 20]
PROMPT = [1, 9, 30]
STOPS = (0, 7)


def reference(
    logits: list[float],
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    presence_penalty: float = 0.0,
    frequency_penalty: float = 0.0,
    logit_bias: dict[int, float] | None = None,
    min_tokens: int = 0,
) -> dict[int, float]:
    """Probability of each id that may be drawn."""
    changed = list(logits)
    for i in {*PROMPT, *OUTPUT}:
        up = changed[i] > 0
        changed[i] = changed[i] / repetition_penalty if up else changed[i] * repetition_penalty
    for i, times in Counter(OUTPUT).items():
        changed[i] -= presence_penalty + frequency_penalty * times
    for i, bias in (logit_bias or {}).items():
        changed[i] = -math.inf if bias <= -100 else changed[i] + bias
    if len(OUTPUT) < min_tokens:
        for i in STOPS:
            changed[i] = -math.inf
    order = sorted((i for i in range(VOCAB) if changed[i] > -math.inf), key=lambda i: -changed[i])
    order = order[:top_k] if top_k else order
    weights = [math.exp((changed[i] - changed[order[0]]) / temperature) for i in order]
    shares = [w / sum(weights) for w in weights]
    kept: dict[int, float] = {}
    before = 0.0
    for i, share in zip(order, shares, strict=True):
        if not kept or (before < top_p and share >= min_p * shares[0]):
            kept[i] = share
        before += share
    return {i: share / sum(kept.values()) for i, share in kept.items()}


@pytest.mark.parametrize(
    "controls",
    [
        {},
        *({"temperature": value} for value in (0.5, 2.0)),
        {"top_k": 6},
        {"top_p": 0.8},
        {"min_p": 0.2},
        *({"repetition_penalty": value} for value in (1.5, 0.7)),
        {"presence_penalty": 1.5},
        *({"frequency_penalty": value} for value in (0.7, -0.5)),
        {"min_tokens": 6},
        {"logit_bias": {4: -2.0, 5: 1.5, 6: -100.0}},
        {
            "temperature": 0.8,
            "top_k": 20,
            "top_p": 0.9,
            "min_p": 0.02,
            "repetition_penalty": 1.2,
            "presence_penalty": 0.4,
            "frequency_penalty": 0.2,
            "logit_bias": {11: 1.0},
            "min_tokens": 8,
        },
    ],
    ids=lambda controls: "+".join(controls) or "plain",
)
def test_draws_follow_the_reference(controls: dict):
    logits = 1.5 * torch.randn(VOCAB, generator=torch.Generator().manual_seed(9))
    fields = {"temperature": 1.0, "max_tokens": 20, **controls}
    rows = [sequence(PROMPT, OUTPUT, stop_ids=STOPS, seed=seed, **fields) for seed in range(COUNT)]
    tokens = sample(logits.repeat(COUNT, 1), rows)
    seen = Counter(token.token_id for token in tokens if isinstance(token, EmittedToken))
    expected = reference(logits.tolist(), **controls)
    assert sum(seen.values()) == COUNT
    assert set(seen) <= set(expected), "an id that the controls exclude"
    chi, cells, rare_expected, rare_seen = 0.0, 0, 0.0, 0
    for i, share in expected.items():
        if COUNT * share < 10:
            rare_expected, rare_seen = rare_expected + COUNT * share, rare_seen + seen[i]
            continue
        chi += (seen[i] - COUNT * share) ** 2 / (COUNT * share)
        cells += 1
    if rare_expected > 5:
        chi += (rare_seen - rare_expected) ** 2 / rare_expected
        cells += 1
    freedom = max(1, cells - 1)
    # Wilson-Hilferty: the 99.99 % point.
    limit = freedom * (1 - 2 / (9 * freedom) + 3.72 * math.sqrt(2 / (9 * freedom))) ** 3
    assert chi < limit
