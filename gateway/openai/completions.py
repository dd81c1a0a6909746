"""POST /v1/completions: what does a text completion request ask of the core?"""

import time
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.errors import ContextExceeded, bad_field
from gateway.generate.request import Generation
from gateway.http.context import Gateway
from gateway.http.requests import client_of_request, gateway_of, off_loop, recorded
from gateway.http.respond import answer
from gateway.openai.completion_fields import completion_answers
from gateway.openai.completion_reply import CompletionReply
from gateway.openai.models import CompletionRequest, stream_options_of
from gateway.openai.reading import fields_of, read_body, tenant_of_request
from gateway.openai.replies import ReplyHead, new_id
from gateway.text.prompt_encoder import EncodedPrompt

TextOrIds = str | list[int]


async def completions(request: Request) -> Response:
    """Validate, encode, generate; no chat template, no parser."""
    gateway = gateway_of(request)
    with recorded(request, "completions") as record:
        body = await read_body(request)
        gateway.check_model(body.get("model"))
        fields = fields_of(request, body, CompletionRequest)
        limits = gateway.limits
        answers = completion_answers(
            fields,
            gateway.model.defaults,
            vocab_size=gateway.model.config.vocab_size,
            limits=limits,
        )
        sampling, n = answers.sampling, answers.num_choices
        body_bytes = len(await request.body())
        prompts = await off_loop(request, body_bytes, lambda: _prompts(gateway, fields.prompt))
        if len(prompts) * n > limits.streams:
            raise bad_field("prompt", f"prompts times n: at most {limits.streams}")
        stream_options = stream_options_of(fields)
        tenant, client_id = tenant_of_request(request, fields), client_of_request(request)
        gateway.require_ready()
        started_s = time.perf_counter()
        encoded = [
            await _encode(gateway, prompt, _name(i, fields), client_id)
            for i, prompt in enumerate(prompts)
        ]
        tokenise_s = time.perf_counter() - started_s
        num_tokens = n * sum(len(prompt.ids) for prompt in encoded)
        if sampling.prompt_logprobs:
            _check_prompt_logprobs(gateway, num_tokens, sampling.top_logprobs)
        asked = Generation(
            request_id=request.state.request_id,
            prompts=encoded,
            answers=answers,
            tenant=tenant,
            client_id=client_id,
            with_timings=bool(fields.expertmesh_timings),
            received_s=record.received_s,
        )
        choices = await off_loop(request, num_tokens, lambda: gateway.choices(asked))
        stream = bool(fields.stream)
        head = ReplyHead(
            id=new_id("cmpl-"),
            object="text_completion",
            model=gateway.model.name,
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


def _check_prompt_logprobs(gateway: Gateway, num_tokens: int, num_alternatives: int) -> None:
    entries = num_tokens * (1 + num_alternatives)
    most = gateway.limits.prompt_logprobs
    if entries > most:
        raise bad_field(
            "prompt", f"with echo and logprobs at most {most} log-probabilities, asks for {entries}"
        )


def _prompts(gateway: Gateway, prompt: Any) -> list[TextOrIds]:
    """The four forms of `prompt` as a list. Raises RequestError naming the element."""
    if isinstance(prompt, str):
        return [prompt]
    if not isinstance(prompt, list) or not prompt:
        raise bad_field("prompt", "must be a string, strings, token ids or lists of token ids")
    if _is_int(prompt[0]):
        return [_token_ids(gateway, "prompt", prompt)]
    if len(prompt) > gateway.limits.prompts:
        raise bad_field("prompt", f"at most {gateway.limits.prompts} prompts, got {len(prompt)}")
    prompts: list[TextOrIds] = []
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
    if len(ids) >= gateway.max_model_len:  # before each of a million is checked
        raise ContextExceeded(name, len(ids), gateway.max_model_len, at_least=False)
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


async def _encode(gateway: Gateway, prompt: TextOrIds, name: str, client: str) -> EncodedPrompt:
    if isinstance(prompt, list):
        return EncodedPrompt(ids=prompt, field=name)
    if not prompt:
        raise bad_field(name, "must not be empty")
    ids = await gateway.encoder.text(
        name, prompt, max_model_len=gateway.max_model_len, client=client
    )
    return EncodedPrompt(ids=ids, field=name)


def _echo(gateway: Gateway, fields: CompletionRequest, prompt: TextOrIds) -> str:
    if not fields.echo:
        return ""
    return prompt if isinstance(prompt, str) else gateway.model.tokenizer.decode(prompt)
