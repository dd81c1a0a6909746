"""What do a completion's fields ask of the core, whatever its prompt?"""

from collections.abc import Mapping
from typing import Any

from gateway.generate.parameters import set_logprobs
from gateway.generate.request import Answers
from gateway.http.typed_body import parse_model
from gateway.limits import Limits
from gateway.openai.answer_form import answer_form
from gateway.openai.field_rules import FieldRules
from gateway.openai.models import CompletionRequest
from gateway.openai.sampling import (
    bad_words,
    num_choices,
    output_length,
    read_sampling,
    stop_strings,
)
from moe_model.config import GenerationDefaults


def read_completion(
    body: Mapping[str, Any], defaults: GenerationDefaults, *, vocab_size: int, limits: Limits
) -> Answers:
    """For callers without HTTP, who have these fields and a prompt of their own.

    Raises RequestError naming the first field that is wrong or refused.
    """
    whole = {"model": "", "prompt": "", **body}
    FieldRules().check(whole, CompletionRequest.model_fields)
    fields = parse_model(CompletionRequest, whole)
    return completion_answers(fields, defaults, vocab_size=vocab_size, limits=limits)


def completion_answers(
    fields: CompletionRequest, defaults: GenerationDefaults, *, vocab_size: int, limits: Limits
) -> Answers:
    """Raises RequestError naming the field."""
    sampling = read_sampling(fields, defaults, vocab_size=vocab_size, limits=limits)
    if fields.logprobs is not None:
        set_logprobs(sampling, fields.logprobs, "logprobs", limits)
        sampling.prompt_logprobs = bool(fields.echo)
    return Answers(
        sampling=sampling,
        length=output_length(fields, at_least=0 if fields.echo else 1),
        num_choices=num_choices(fields.n, limits),
        stops=stop_strings(fields.stop, limits),
        bad_words=bad_words(fields, limits),
        form=answer_form(fields, limits),
    )
