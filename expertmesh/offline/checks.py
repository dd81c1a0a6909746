"""Which sampling does a request mean, and is it allowed? The gateway's own checks, offline.

An offline caller is alone on its machine, so that the limits which protect a server from its
clients are wide here; the ranges of the values are the same.
"""

from typing import Any

from gateway.errors import ApiError
from gateway.limits import Limits
from gateway.openai.field_rules import FieldRules
from gateway.openai.models import CompletionRequest, parse_model
from gateway.openai.output_form import output_form
from gateway.openai.sampling import (
    num_choices,
    sampling_params,
    set_logprobs,
    set_output_length,
    stop_strings,
)
from moe_model.config import GenerationDefaults
from protos import attention_pb2

LIMITS = Limits(
    choices=1024,
    streams=1024,
    stops=256,
    stop_chars=4096,
    stop_token_ids=64,
    tokenise_timeout_s=600.0,
    tokenise_queue=1_000_000,
)
_ANY_LENGTH = 2**31 - 1


class GenerationFailed(RuntimeError):
    """A generation that was in order ended without an answer; the message says why."""


def as_python_error(error: ApiError) -> Exception:
    """What a caller could have avoided is a ValueError, everything else GenerationFailed."""
    if error.status in (400, 404, 413, 422):
        return ValueError(error.message)
    return GenerationFailed(error.message)


def check_sampling(fields: dict[str, Any]) -> None:
    """Check what needs no model. Raises ValueError naming the field."""
    try:
        request = read_fields(fields)
        sampling_for(
            request,
            GenerationDefaults(),
            vocab_size=_ANY_LENGTH,
            num_prompt_tokens=1,
            max_model_len=_ANY_LENGTH,
        )
    except ApiError as error:
        raise as_python_error(error) from None


def read_fields(fields: dict[str, Any]) -> CompletionRequest:
    """The gateway's typed request. Raises ApiError naming a wrong or refused field."""
    body = {"model": "", "prompt": "", **fields}
    FieldRules().check(body, CompletionRequest.model_fields)
    request = parse_model(CompletionRequest, body)
    num_choices(request.n, LIMITS)
    stop_strings(request.stop, LIMITS)
    output_form(request.structured_outputs, LIMITS, thinks=False)
    return request


def sampling_for(
    request: CompletionRequest,
    defaults: GenerationDefaults,
    *,
    vocab_size: int,
    num_prompt_tokens: int,
    max_model_len: int,
) -> attention_pb2.SamplingParams:
    """What is sent to the attention service. Raises ApiError naming the field."""
    sampling = sampling_params(request, defaults, vocab_size=vocab_size, limits=LIMITS)
    if request.logprobs is not None:
        set_logprobs(sampling, request.logprobs, "logprobs", LIMITS)
    set_output_length(
        sampling,
        num_prompt_tokens=num_prompt_tokens,
        max_tokens=request.max_tokens,
        min_tokens=request.min_tokens,
        max_model_len=max_model_len,
        max_tokens_field="max_tokens",
        prompt_field="prompt",
    )
    return sampling
