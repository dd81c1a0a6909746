"""POST /v1/completions: which choices does a text completion request ask for?"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.errors import bad_field, context_exceeded
from gateway.generate.choice_streams import Choice
from gateway.generate.grammar import RequestGrammar
from gateway.generate.request import (
    client_of_request,
    new_request,
    starts_in_reasoning,
    stop_ids_of,
    tenant_of_request,
)
from gateway.generate.stream_state import StreamState
from gateway.http.context import Gateway
from gateway.http.requests import gateway_of, off_loop, read_object, recorded
from gateway.http.respond import answer
from gateway.openai.completion_reply import CompletionReply
from gateway.openai.models import CompletionRequest, parse_model, stream_options_of
from gateway.openai.output_form import FIELD, output_form
from gateway.openai.replies import ReplyHead, new_id, now
from gateway.openai.sampling import (
    num_choices,
    sampling_params,
    set_logprobs,
    set_output_length,
    stop_strings,
)
from gateway.text.choice_text import PlainText
from protos import attention_pb2

Prompt = str | list[int]


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """A checked request, before its prompts are known."""

    request_id: str
    tenant: str
    client_id: str
    received_s: float
    fields: CompletionRequest
    sampling: attention_pb2.SamplingParams
    num_choices: int
    stops: list[str]
    grammars: dict[bool, RequestGrammar | None]
    """By whether the output begins with thinking."""


async def completions(request: Request) -> Response:
    """Validate, encode, generate; no chat template, no parser."""
    gateway = gateway_of(request)
    with recorded(request, "completions") as record:
        body = await read_object(request, gateway.limits)
        gateway.check_model(body.get("model"))
        gateway.rules.check(body, CompletionRequest.model_fields)
        fields = parse_model(CompletionRequest, body)
        sampling = _sampling(gateway, fields)
        body_bytes = len(await request.body())
        prompts = await off_loop(request, body_bytes, lambda: _prompts(gateway, fields.prompt))
        n = num_choices(fields.n, gateway.limits)
        if len(prompts) * n > gateway.limits.streams:
            raise bad_field("prompt", f"prompts times n: at most {gateway.limits.streams}")
        stops = stop_strings(fields.stop, gateway.limits)
        stream_options = stream_options_of(fields)
        plan = _Plan(
            request_id=request.state.request_id,
            tenant=tenant_of_request(gateway, request, fields),
            client_id=client_of_request(request),
            received_s=record.received_s,
            fields=fields,
            sampling=sampling,
            num_choices=n,
            stops=stops,
            grammars={thinks: _grammar(gateway, fields, thinks) for thinks in (False, True)},
        )
        gateway.require_ready()
        started_s = time.perf_counter()
        encoded = [
            await _encode(gateway, prompt, _name(i, fields), plan.client_id)
            for i, prompt in enumerate(prompts)
        ]
        tokenise_s = time.perf_counter() - started_s
        if sampling.prompt_logprobs:
            _check_prompt_logprobs(gateway, n * sum(map(len, encoded)), sampling.top_logprobs)
        choices = await off_loop(
            request, n * sum(map(len, encoded)), lambda: _all_choices(gateway, plan, encoded)
        )
        stream = bool(fields.stream)
        head = ReplyHead(
            id=new_id("cmpl-"),
            object="text_completion",
            model=gateway.model.name,
            created=now(),
            choices=choices,
            prompts=len(prompts),
            tokenise_s=tokenise_s,
            with_timings=bool(fields.expertmesh_timings),
            stream_options=stream_options,
        )
        echoes = [_echo(gateway, fields, prompts[choice.index // n]) for choice in choices]
        reply = CompletionReply(
            head,
            gateway.model,
            echoes=echoes,
            with_logprobs=sampling.logprobs,
            with_token_ids=bool(fields.return_token_ids),
            tokens_as_ids=bool(fields.return_tokens_as_token_ids),
        )
        return await answer(gateway, request, record, choices, reply, stream=stream)


def _sampling(gateway: Gateway, fields: CompletionRequest) -> attention_pb2.SamplingParams:
    sampling = sampling_params(
        fields,
        gateway.model.defaults,
        vocab_size=gateway.model.config.vocab_size,
        limits=gateway.limits,
    )
    if fields.logprobs is not None:
        set_logprobs(sampling, fields.logprobs, "logprobs", gateway.limits)
        sampling.prompt_logprobs = bool(fields.echo)
    return sampling


def _check_prompt_logprobs(gateway: Gateway, num_tokens: int, num_alternatives: int) -> None:
    entries = num_tokens * (1 + num_alternatives)
    most = gateway.limits.prompt_logprobs
    if entries > most:
        raise bad_field(
            "prompt", f"with echo and logprobs at most {most} log-probabilities, asks for {entries}"
        )


def _prompts(gateway: Gateway, prompt: Any) -> list[Prompt]:
    """The four forms of `prompt` as a list. Raises ApiError 400 naming the element."""
    if isinstance(prompt, str):
        return [prompt]
    if not isinstance(prompt, list) or not prompt:
        raise bad_field("prompt", "must be a string, strings, token ids or lists of token ids")
    if _is_int(prompt[0]):
        return [_token_ids(gateway, "prompt", prompt)]
    if len(prompt) > gateway.limits.prompts:
        raise bad_field("prompt", f"at most {gateway.limits.prompts} prompts, got {len(prompt)}")
    prompts: list[Prompt] = []
    for index, one in enumerate(prompt):
        if isinstance(one, str):
            prompts.append(one)
        elif isinstance(one, list):
            prompts.append(_token_ids(gateway, f"prompt[{index}]", one))
        else:
            raise bad_field(
                f"prompt[{index}]", "must be a string or a list of token ids", "invalid_type"
            )
    return prompts


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _token_ids(gateway: Gateway, name: str, ids: Sequence[Any]) -> list[int]:
    if not ids:
        raise bad_field(name, "must not be empty")
    if len(ids) >= gateway.max_model_len:  # before a look at each of a million
        raise context_exceeded(name, len(ids), gateway.max_model_len, at_least=False)
    tokenizer = gateway.model.tokenizer
    for index, token_id in enumerate(ids):
        if not _is_int(token_id):
            raise bad_field(f"{name}[{index}]", "must be a token id", "invalid_type")
        if not tokenizer.has_token(token_id):
            raise bad_field(f"{name}[{index}]", f"{token_id} is not in the vocabulary")
    return list(ids)


def _name(index: int, fields: CompletionRequest) -> str:
    """How an error names this prompt."""
    several = isinstance(fields.prompt, list) and not _is_int(fields.prompt[0])
    return f"prompt[{index}]" if several else "prompt"


async def _encode(gateway: Gateway, prompt: Prompt, name: str, client: str) -> list[int]:
    if isinstance(prompt, list):
        return prompt
    if not prompt:
        raise bad_field(name, "must not be empty")
    return await gateway.encoder.text(
        name, prompt, max_model_len=gateway.max_model_len, client=client
    )


def _echo(gateway: Gateway, fields: CompletionRequest, prompt: Prompt) -> str:
    if not fields.echo:
        return ""
    return prompt if isinstance(prompt, str) else gateway.model.tokenizer.decode(prompt)


def _grammar(gateway: Gateway, fields: CompletionRequest, thinks: bool) -> RequestGrammar | None:
    """The one grammar of all prompts that end in thinking, or do not, and of all their choices."""
    text = output_form(fields.structured_outputs, gateway.limits, thinks=thinks)
    return RequestGrammar(text, FIELD) if text is not None else None


def _all_choices(gateway: Gateway, plan: _Plan, prompts: list[list[int]]) -> list[Choice]:
    return [choice for i, ids in enumerate(prompts) for choice in _choices(gateway, plan, i, ids)]


def _choices(gateway: Gateway, plan: _Plan, index: int, prompt: list[int]) -> list[Choice]:
    """The `n` choices of one prompt."""
    fields = plan.fields
    own_sampling = attention_pb2.SamplingParams()
    own_sampling.CopyFrom(plan.sampling)
    set_output_length(
        own_sampling,
        num_prompt_tokens=len(prompt),
        max_tokens=fields.max_tokens,
        least_tokens=0 if fields.echo else 1,
        min_tokens=fields.min_tokens,
        max_model_len=gateway.max_model_len,
        max_tokens_field="max_tokens",
        prompt_field=_name(index, fields),
    )
    thinks = fields.structured_outputs is not None and starts_in_reasoning(gateway, prompt)
    return [
        Choice(
            index=index * plan.num_choices + offset,
            state=StreamState(
                request=new_request(
                    gateway,
                    request_id=plan.request_id,
                    prompt=prompt,
                    sampling=own_sampling,
                    choice_idx=offset,
                    tenant=plan.tenant,
                    client_id=plan.client_id,
                    fields=fields,
                    thinks=thinks,
                ),
                grammar=plan.grammars[thinks],
                received_s=plan.received_s,
            ),
            text=PlainText(gateway.model.tokenizer, stops=plan.stops),
            stop_ids=stop_ids_of(gateway, own_sampling),
            vocab_size=gateway.model.config.vocab_size,
        )
        for offset in range(plan.num_choices)
    ]
