"""How is the next token of a request chosen? Its sampling parameters, checked.

The gateway has checked them too, but any peer may be hostile or old.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from attention_svc.sequence.banned import BannedSequences
from protos import attention_pb2
from protos.sampling_ranges import (
    GREEDY_BELOW,
    MAX_ALLOWED_TOKEN_IDS,
    MAX_BANNED_SEQUENCES,
    MAX_BANNED_TOKENS,
    MAX_LOGIT_BIAS,
    MAX_TOP_LOGPROBS,
    RANGES,
)

MAX_STOP_IDS = 64


@dataclass(frozen=True, kw_only=True)
class SequenceParams:
    """See protos/attention.proto for ranges."""

    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    logit_bias: tuple[tuple[int, float], ...]
    seed: int
    max_tokens: int
    min_tokens: int
    stop_token_ids: frozenset[int]
    ignore_eos: bool
    logprobs: bool
    top_logprobs: int
    prompt_logprobs: bool = False
    allowed_token_ids: tuple[int, ...] = ()
    """Empty: all."""
    banned: BannedSequences | None = None

    @property
    def is_greedy(self) -> bool:
        return self.temperature < GREEDY_BELOW

    @property
    def has_penalties(self) -> bool:
        return (
            self.repetition_penalty != 1.0
            or self.presence_penalty != 0.0
            or self.frequency_penalty != 0.0
        )

    @cached_property
    def changes_logits(self) -> bool:
        """Whether penalties, biases or masks touch the logits."""
        return (
            self.has_penalties
            or bool(self.logit_bias)
            or bool(self.allowed_token_ids)
            or self.banned is not None
        )

    @cached_property
    def bias_arrays(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Ids, and what is added to their logits: -infinity for -100, which bans an id."""
        ids = np.array([token_id for token_id, _ in self.logit_bias], np.int64)
        biases = np.array([bias for _, bias in self.logit_bias], np.float32)
        return ids, np.where(biases <= -100, np.float32("-inf"), biases)


def read_params(message: attention_pb2.SamplingParams, vocab_size: int) -> SequenceParams:
    """Check a message. Raises ValueError naming the field and what is allowed."""
    m = message
    if not 0.0 < m.top_p <= 1.0:
        raise ValueError(f"sampling.top_p must be in (0, 1], got {m.top_p!r}")
    for name, (low, high) in RANGES.items():
        _check(name, getattr(m, name), low, high)
    if m.min_tokens > m.max_tokens:
        raise ValueError(f"sampling.min_tokens {m.min_tokens} exceeds max_tokens {m.max_tokens}")
    if len(m.stop_token_ids) > MAX_STOP_IDS or len(m.logit_bias) > MAX_LOGIT_BIAS:
        raise ValueError(
            f"sampling: at most {MAX_STOP_IDS} stop_token_ids and {MAX_LOGIT_BIAS} logit_bias "
            "entries"
        )
    if len(m.allowed_token_ids) > MAX_ALLOWED_TOKEN_IDS:
        raise ValueError(f"sampling.allowed_token_ids: at most {MAX_ALLOWED_TOKEN_IDS}")
    _check_banned(m)
    if m.top_logprobs > MAX_TOP_LOGPROBS:
        raise ValueError(f"sampling.top_logprobs must be in 0..{MAX_TOP_LOGPROBS}")
    for token_id in (
        *m.stop_token_ids,
        *(entry.token_id for entry in m.logit_bias),
        *m.allowed_token_ids,
        *(token_id for banned in m.banned_sequences for token_id in banned.token_ids),
    ):
        if token_id >= vocab_size:
            raise ValueError(f"sampling: token id {token_id} is not in 0..{vocab_size - 1}")
    for entry in m.logit_bias:
        _check("logit_bias", entry.bias, -100.0, 100.0)
    return SequenceParams(
        temperature=m.temperature,
        top_p=m.top_p,
        top_k=m.top_k,
        min_p=m.min_p,
        repetition_penalty=m.repetition_penalty,
        presence_penalty=m.presence_penalty,
        frequency_penalty=m.frequency_penalty,
        logit_bias=tuple((entry.token_id, entry.bias) for entry in m.logit_bias),
        seed=m.seed,
        max_tokens=m.max_tokens,
        min_tokens=m.min_tokens,
        stop_token_ids=frozenset(m.stop_token_ids),
        ignore_eos=m.ignore_eos,
        logprobs=m.logprobs,
        top_logprobs=m.top_logprobs,
        prompt_logprobs=m.prompt_logprobs,
        allowed_token_ids=tuple(m.allowed_token_ids),
        banned=BannedSequences([tuple(one.token_ids) for one in m.banned_sequences])
        if m.banned_sequences
        else None,
    )


def _check_banned(message: attention_pb2.SamplingParams) -> None:
    lengths = [len(one.token_ids) for one in message.banned_sequences]
    if len(lengths) > MAX_BANNED_SEQUENCES or sum(lengths) > MAX_BANNED_TOKENS:
        raise ValueError(
            f"sampling.banned_sequences: at most {MAX_BANNED_SEQUENCES}, with "
            f"{MAX_BANNED_TOKENS} token ids together"
        )
    if 0 in lengths:
        raise ValueError("sampling.banned_sequences: each needs a token id")


def _check(name: str, value: float, low: float, high: float) -> None:
    if not math.isfinite(value) or not low <= value <= high:
        raise ValueError(f"sampling.{name} must be in [{low:g}, {high:g}], got {value!r}")
