"""Which parameters of the core do OpenAI's fields set?"""

from dataclasses import fields as fields_of
from typing import Any

from gateway.errors import bad_field
from gateway.generate.bad_words import BadWords
from gateway.generate.parameters import (
    OutputLength,
    Parameters,
    check_bad_words,
    check_stop_strings,
    sampling_params,
)
from gateway.limits import Limits
from gateway.openai.models import SamplingFields
from moe_model.config import GenerationDefaults
from protos import attention_pb2

_SAME_NAMES = tuple(field.name for field in fields_of(Parameters))


def read_sampling(
    fields: SamplingFields, defaults: GenerationDefaults, *, vocab_size: int, limits: Limits
) -> attention_pb2.SamplingParams:
    """Everything but max_tokens and log-probabilities. Raises RequestError naming the field."""
    asked = Parameters(**{name: getattr(fields, name) for name in _SAME_NAMES})
    return sampling_params(asked, defaults, vocab_size=vocab_size, limits=limits)


def output_length(
    fields: SamplingFields, max_completion_tokens: int | None = None, *, at_least: int = 1
) -> OutputLength:
    """The bounds and the fields that gave them. Raises RequestError below `at_least`."""
    max_tokens, field = fields.max_tokens, "max_tokens"
    if max_completion_tokens is not None:
        if max_tokens not in (None, max_completion_tokens):
            raise bad_field("max_completion_tokens", "differs from max_tokens; give one of them")
        max_tokens, field = max_completion_tokens, "max_completion_tokens"
    if max_tokens is not None and max_tokens < at_least:
        raise bad_field(
            field,
            f"must be at least {at_least}, or -1 for all that the context has room for, "
            f"got {max_tokens}",
        )
    least = fields.min_tokens or 0
    return OutputLength(most=max_tokens, least=least, most_field=field, least_field="min_tokens")


def num_choices(n: int | None, limits: Limits) -> int:
    """`n`, checked."""
    value = 1 if n is None else n
    if not 1 <= value <= limits.choices:
        raise bad_field("n", f"must be 1 to {limits.choices}, got {value}")
    return value


def stop_strings(stop: Any, limits: Limits) -> list[str]:
    """`stop` as a list, checked."""
    stops = [] if stop is None else [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list):
        raise bad_field("stop", "must be a string or a list of strings", "invalid_type")
    check_stop_strings(stops, "stop", limits)
    return stops


def bad_words(fields: SamplingFields, limits: Limits) -> BadWords:
    """`bad_words`, checked."""
    words = BadWords(texts=fields.bad_words or (), field="bad_words")
    check_bad_words(words.texts, words.field, limits)
    return words
