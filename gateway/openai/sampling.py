"""Which sampling parameters does a request mean? Ranges, defaults, seed, room for output.

Rules that are choices:
- Temperatures below 1e-5 are greedy (0).
- top_k 0 and -1 mean all tokens; larger than the vocabulary means all.
- A seed is taken modulo 2^64; without one it is drawn at random.
- max_tokens beyond what the prompt leaves of the context is cut to that; -1 asks for all of it.
"""

import secrets
from collections.abc import Sequence
from typing import Any

from gateway.errors import bad_field, context_exceeded
from gateway.limits import Limits
from gateway.openai.models import SamplingFields
from moe_model.config import GenerationDefaults
from protos import attention_pb2

_GREEDY_BELOW = 1e-5
_SMALLEST_TOP_P = 1e-6


def sampling_params(
    fields: SamplingFields,
    defaults: GenerationDefaults,
    *,
    vocab_size: int,
    limits: Limits,
) -> attention_pb2.SamplingParams:
    """Everything but max_tokens, log-probabilities included apart. Raises ApiError 400."""
    temperature = _given(fields.temperature, defaults.temperature)
    _range("temperature", temperature, 0.0, 2.0)
    top_p = _given(fields.top_p, defaults.top_p)
    if not 0.0 < top_p <= 1.0:
        raise bad_field("top_p", f"must be above 0 and at most 1, got {top_p}")
    top_k = _given(fields.top_k, defaults.top_k)
    if top_k < -1:
        raise bad_field("top_k", f"must be -1 or 0 (all tokens) or at least 1, got {top_k}")
    min_p = _given(fields.min_p, 0.0)
    _range("min_p", min_p, 0.0, 1.0)
    repetition = _given(fields.repetition_penalty, defaults.repetition_penalty)
    _range(
        "repetition_penalty",
        repetition,
        limits.min_repetition_penalty,
        limits.max_repetition_penalty,
    )
    presence = _given(fields.presence_penalty, 0.0)
    _range("presence_penalty", presence, -2.0, 2.0)
    frequency = _given(fields.frequency_penalty, 0.0)
    _range("frequency_penalty", frequency, -2.0, 2.0)
    return attention_pb2.SamplingParams(
        temperature=temperature if temperature >= _GREEDY_BELOW else 0.0,
        top_p=max(top_p, _SMALLEST_TOP_P),
        top_k=0 if top_k in (-1, 0) or top_k >= vocab_size else top_k,
        min_p=min_p,
        repetition_penalty=repetition,
        presence_penalty=presence,
        frequency_penalty=frequency,
        logit_bias=_logit_bias(fields.logit_bias or {}, vocab_size, limits),
        seed=_seed(fields.seed),
        stop_token_ids=_stop_token_ids(fields.stop_token_ids or [], vocab_size, limits),
        ignore_eos=bool(fields.ignore_eos),
    )


def set_output_length(
    sampling: attention_pb2.SamplingParams,
    *,
    num_prompt_tokens: int,
    max_tokens: int | None,
    min_tokens: int | None,
    max_model_len: int,
    max_tokens_field: str,
    prompt_field: str,
    least_tokens: int = 1,
) -> None:
    """Fill max_tokens and min_tokens. Raises ApiError 400 when the prompt leaves no room."""
    if max_tokens is not None and max_tokens < least_tokens:
        raise bad_field(
            max_tokens_field,
            f"must be at least {least_tokens}, or -1 for all that the context has room for, "
            f"got {max_tokens}",
        )
    room = max_model_len - num_prompt_tokens
    if room < 1:
        raise context_exceeded(prompt_field, num_prompt_tokens, max_model_len, at_least=False)
    least = _given(min_tokens, 0)
    if least < 0 or (max_tokens is not None and least > max_tokens):
        raise bad_field("min_tokens", f"must be 0 to {max_tokens_field}, got {least}")
    if least > room:
        raise bad_field("min_tokens", f"the context has room for {room} tokens, got {least}")
    sampling.max_tokens = room if max_tokens is None else min(max_tokens, room)
    sampling.min_tokens = least


def set_logprobs(
    sampling: attention_pb2.SamplingParams, top_logprobs: int, field: str, limits: Limits
) -> None:
    """Ask for log-probabilities with this many alternatives."""
    if not 0 <= top_logprobs <= limits.top_logprobs:
        raise bad_field(field, f"must be 0 to {limits.top_logprobs}, got {top_logprobs}")
    sampling.logprobs = True
    sampling.top_logprobs = top_logprobs


def num_choices(n: int | None, limits: Limits) -> int:
    """`n`, checked."""
    value = _given(n, 1)
    if not 1 <= value <= limits.choices:
        raise bad_field("n", f"must be 1 to {limits.choices}, got {value}")
    return value


def stop_strings(stop: Any, limits: Limits) -> list[str]:
    """`stop` as a list, checked."""
    if stop is None:
        return []
    stops = [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list):
        raise bad_field("stop", "must be a string or a list of strings", "invalid_type")
    if len(stops) > limits.stops:
        raise bad_field("stop", f"at most {limits.stops} strings, got {len(stops)}")
    for index, text in enumerate(stops):
        if not isinstance(text, str):
            raise bad_field(f"stop[{index}]", "must be a string", "invalid_type")
        if not 1 <= len(text) <= limits.stop_chars:
            raise bad_field(
                f"stop[{index}]", f"must have 1 to {limits.stop_chars} characters, has {len(text)}"
            )
    return stops


def _given(value: Any, default: Any) -> Any:
    return default if value is None else value


def _range(field: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise bad_field(field, f"must be {low:g} to {high:g}, got {value:g}")


def _seed(seed: int | None) -> int:
    return secrets.randbits(64) if seed is None else seed % 2**64


def _logit_bias(
    biases: dict[str, float], vocab_size: int, limits: Limits
) -> list[attention_pb2.LogitBias]:
    if len(biases) > limits.logit_bias:
        raise bad_field("logit_bias", f"at most {limits.logit_bias} entries, got {len(biases)}")
    result = []
    seen: set[int] = set()
    for key, bias in biases.items():
        if not (key.isascii() and key.isdecimal() and len(key) <= 10 and int(key) < vocab_size):
            raise bad_field(
                "logit_bias", f"keys are token ids, 0 to {vocab_size - 1}, got {key[:40]!r}"
            )
        if not -100 <= bias <= 100:
            raise bad_field("logit_bias", f"values are -100 to 100, got {bias:g}")
        if int(key) in seen:
            raise bad_field("logit_bias", f"token id {int(key)} is given twice")
        seen.add(int(key))
        result.append(attention_pb2.LogitBias(token_id=int(key), bias=bias))
    return result


def _stop_token_ids(ids: Sequence[int], vocab_size: int, limits: Limits) -> Sequence[int]:
    if len(ids) > limits.stop_token_ids:
        raise bad_field("stop_token_ids", f"at most {limits.stop_token_ids} ids, got {len(ids)}")
    for index, token_id in enumerate(ids):
        if not 0 <= token_id < vocab_size:
            raise bad_field(
                f"stop_token_ids[{index}]", f"must be 0 to {vocab_size - 1}, got {token_id}"
            )
    return ids
