"""Which sampling parameters apply to a request? Ranges, defaults, seed, room for output.

Rules that are choices:
- Temperatures below 1e-5 are greedy (0).
- top_k 0 and -1 mean all tokens; larger than the vocabulary means all.
- A seed is taken modulo 2^64; without one a random seed is drawn.
- An output length beyond what the prompt leaves of the context is cut to that.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from gateway.errors import ContextExceeded, bad_field
from gateway.limits import Limits
from moe_model.config import GenerationDefaults
from protos import attention_pb2
from protos.sampling_ranges import GREEDY_BELOW, RANGES

_SMALLEST_TOP_P = 1e-6


def _between(low: float, high: float, *, off: float | None = None) -> Any:
    """A number of this range. `off`: its default, where the checkpoint has none for it."""
    return field(default=None, metadata={"range": (low, high), "off": off})


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What a client may set of the sampling, by the names that errors use. None: not set.

    The names are those of the wire's `SamplingParams`.
    """

    temperature: float | None = _between(*RANGES["temperature"])
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = _between(*RANGES["min_p"], off=0.0)
    repetition_penalty: float | None = _between(0.01, 10)  # the wire's ends make no sense
    presence_penalty: float | None = _between(*RANGES["presence_penalty"], off=0.0)
    frequency_penalty: float | None = _between(*RANGES["frequency_penalty"], off=0.0)
    logit_bias: Mapping[str, float] | None = None
    """By token id, written as text."""
    seed: int | None = None
    stop_token_ids: Sequence[int] | None = None
    ignore_eos: bool | None = None
    allowed_token_ids: Sequence[int] | None = None
    """Empty means the same as None."""


_NUMBERS = {one.name: one.metadata for one in fields(Parameters) if one.metadata}
_OFF = {name: number["off"] for name, number in _NUMBERS.items() if number["off"] is not None}


def bounds(name: str) -> dict[str, Any]:
    """The allowed range of a parameter, as JSON Schema says it."""
    low, high = _NUMBERS[name]["range"]
    return {"minimum": low, "maximum": high}


def range_text(name: str) -> str:
    """The allowed range of a parameter, for messages and documentation."""
    low, high = _NUMBERS[name]["range"]
    return f"{low:g} to {high:g}"


@dataclass(frozen=True, kw_only=True)
class OutputLength:
    """How many tokens an answer may have, and what the client calls the two bounds."""

    most: int | None = None
    """None: what the context has room for."""
    least: int = 0
    most_field: str
    least_field: str

    def __post_init__(self) -> None:
        """Raises RequestError when the bounds exclude each other."""
        if self.least < 0 or (self.most is not None and self.least > self.most):
            raise bad_field(self.least_field, f"must be 0 to {self.most_field}, got {self.least}")


def sampling_params(
    asked: Parameters,
    defaults: GenerationDefaults,
    *,
    vocab_size: int,
    limits: Limits,
) -> attention_pb2.SamplingParams:
    """All but the output's length and log-probabilities.

    Raises RequestError naming the parameter.
    """
    said = {name: value for name, value in vars(asked).items() if value is not None}
    values: dict[str, Any] = {**_OFF, **vars(defaults), **said}
    numbers = {name: values[name] for name in _NUMBERS}
    for name, value in numbers.items():
        low, high = _NUMBERS[name]["range"]
        if not low <= value <= high:
            raise bad_field(name, f"must be {range_text(name)}, got {value:g}")
    if numbers["temperature"] < GREEDY_BELOW:
        numbers["temperature"] = 0.0
    top_p, top_k = values["top_p"], values["top_k"]
    if not 0.0 < top_p <= 1.0:
        raise bad_field("top_p", f"must be above 0 and at most 1, got {top_p}")
    if top_k < -1:
        raise bad_field("top_k", f"must be -1 or 0 (all tokens) or at least 1, got {top_k}")
    return attention_pb2.SamplingParams(
        **numbers,
        top_p=max(top_p, _SMALLEST_TOP_P),
        top_k=0 if top_k in (-1, 0) or top_k >= vocab_size else top_k,
        logit_bias=_logit_bias(asked.logit_bias or {}, vocab_size, limits),
        seed=secrets.randbits(64) if asked.seed is None else asked.seed % 2**64,
        stop_token_ids=_token_ids(
            "stop_token_ids", asked.stop_token_ids, vocab_size, limits.stop_token_ids
        ),
        ignore_eos=bool(asked.ignore_eos),
        allowed_token_ids=_token_ids(
            "allowed_token_ids", asked.allowed_token_ids, vocab_size, limits.allowed_token_ids
        ),
    )


def set_output_length(
    sampling: attention_pb2.SamplingParams,
    length: OutputLength,
    *,
    num_prompt_tokens: int,
    max_model_len: int,
    prompt_field: str,
) -> None:
    """Fill max_tokens and min_tokens. Raises RequestError when the prompt leaves no room."""
    room = max_model_len - num_prompt_tokens
    if room < 1:
        raise ContextExceeded(prompt_field, num_prompt_tokens, max_model_len, at_least=False)
    if length.least > room:
        raise bad_field(
            length.least_field, f"the context has room for {room} tokens, got {length.least}"
        )
    sampling.max_tokens = room if length.most is None else min(length.most, room)
    sampling.min_tokens = length.least


def set_logprobs(
    sampling: attention_pb2.SamplingParams, top_logprobs: int, field: str, limits: Limits
) -> None:
    """Ask for log-probabilities with this many alternatives."""
    check_top_logprobs(top_logprobs, field, limits)
    sampling.logprobs = True
    sampling.top_logprobs = top_logprobs


def check_top_logprobs(value: int | None, field: str, limits: Limits) -> None:
    """Raises RequestError naming the field."""
    if value is not None and not 0 <= value <= limits.top_logprobs:
        raise bad_field(field, f"must be 0 to {limits.top_logprobs}, got {value}")


def check_stop_strings(stops: Sequence[Any], field: str, limits: Limits) -> None:
    """Raises RequestError naming the one that is wrong."""
    _check_strings(stops, field, most=limits.stops, most_chars=limits.stop_chars)


def check_bad_words(words: Sequence[Any], field: str, limits: Limits) -> None:
    """Raises RequestError naming the one that is wrong."""
    _check_strings(words, field, most=limits.bad_words, most_chars=limits.bad_word_chars)


def _check_strings(texts: Sequence[Any], field: str, *, most: int, most_chars: int) -> None:
    if len(texts) > most:
        raise bad_field(field, f"at most {most} strings, got {len(texts)}")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise bad_field(f"{field}[{index}]", "must be a string", "invalid_type")
        if not 1 <= len(text) <= most_chars:
            raise bad_field(
                f"{field}[{index}]", f"must have 1 to {most_chars} characters, has {len(text)}"
            )


def _logit_bias(
    biases: Mapping[str, float], vocab_size: int, limits: Limits
) -> list[attention_pb2.LogitBias]:
    if len(biases) > limits.logit_bias:
        raise bad_field("logit_bias", f"at most {limits.logit_bias} entries, got {len(biases)}")
    bias_of: dict[int, float] = {}
    for key, bias in biases.items():
        if not (key.isascii() and key.isdecimal() and len(key) <= 10 and int(key) < vocab_size):
            raise bad_field(
                "logit_bias", f"keys are token ids, 0 to {vocab_size - 1}, got {key[:40]!r}"
            )
        if not -100 <= bias <= 100:
            raise bad_field("logit_bias", f"values are -100 to 100, got {bias:g}")
        if int(key) in bias_of:
            raise bad_field("logit_bias", f"token id {int(key)} is given twice")
        bias_of[int(key)] = bias
    return [attention_pb2.LogitBias(token_id=i, bias=bias) for i, bias in bias_of.items()]


def _token_ids(name: str, given: Sequence[int] | None, vocab_size: int, most: int) -> Sequence[int]:
    ids = given or []
    if len(ids) > most:
        raise bad_field(name, f"at most {most} ids, got {len(ids)}")
    for index, token_id in enumerate(ids):
        if not 0 <= token_id < vocab_size:
            raise bad_field(f"{name}[{index}]", f"must be 0 to {vocab_size - 1}, got {token_id}")
    return ids
