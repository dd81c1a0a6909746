"""Tokens that a device picks at the end of its step are those that the sampler would take."""

from typing import Any

import pytest
import torch

from attention_svc.sampling.plain import MOST_TOP_K, draws, pick_plain, plain_controls
from attention_svc.sampling.sampler import sample
from attention_svc.sequence.params import read_params
from attention_svc.sequence.sequence import EmittedToken, Sequence
from protos import attention_pb2

VOCAB = 20_000
PLAIN: list[dict[str, Any]] = [
    {"temperature": 0.0},
    {"top_k": 1},
    {"top_k": 40, "top_p": 0.95},
    {"top_k": MOST_TOP_K, "temperature": 1.7},
    {"top_k": 20, "min_p": 0.2},
]


def sequence(seed: int, **controls: Any) -> Sequence:
    known = {"temperature": 1.0, "top_p": 1.0, "repetition_penalty": 1.0, "max_tokens": 9}
    params = attention_pb2.SamplingParams(**{**known, **controls, "seed": seed})
    return Sequence(
        request_id="t",
        prompt_ids=[1],
        output_ids=[2] * (seed % 3),
        params=read_params(params, VOCAB),
        stop_ids=frozenset(),
        choice_idx=seed % 2,
    )


def test_picked_tokens_are_the_samplers() -> None:
    logits = 3 * torch.randn(40, VOCAB)
    logits[20:] = (2 * logits[20:]).round() / 2  # many equal ones
    many = [sequence(i, **PLAIN[i % len(PLAIN)]) for i in range(40)]
    controls = plain_controls(many)
    assert controls is not None
    assert draws(controls)
    picked = pick_plain(logits, torch.from_numpy(controls)).tolist()
    expected = sample(logits.clone(), many)
    assert all(token in (-1, one.token_id) for token, one in zip(picked, expected, strict=True))
    assert picked.count(-1) < 10
    assert sample(logits, many, picked=[7] * 40) == [EmittedToken(7)] * 40


def test_rows_that_equal_logits_leave_open_are_not_picked() -> None:
    controls = plain_controls([sequence(1, top_k=5)])
    assert controls is not None
    assert pick_plain(torch.zeros(1, VOCAB), torch.from_numpy(controls)).tolist() == [-1]


@pytest.mark.parametrize(
    "more",
    [
        {"top_p": 0.9},
        {"top_k": MOST_TOP_K + 1},
        {"top_k": 5, "logprobs": True},
        {"top_k": 5, "frequency_penalty": 0.5},
    ],
)
def test_rows_that_ask_for_more_have_no_plain_controls(more: dict[str, Any]) -> None:
    assert plain_controls([sequence(0, temperature=0.0), sequence(1, **more)]) is None


def test_greedy_rows_alone_draw_nothing() -> None:
    controls = plain_controls([sequence(0, temperature=0.0)])
    assert controls is not None
    assert not draws(controls)
