"""POST /v1/completions: what does a text completion request ask of the core?"""

import time

from starlette.requests import Request
from starlette.responses import Response

from gateway.errors import bad_field
from gateway.generate.request import Generation
from gateway.http.context import Gateway
from gateway.http.requests import client_of_request, gateway_of, off_loop, recorded
from gateway.http.respond import answer
from gateway.openai.completion_fields import completion_answers
from gateway.openai.completion_reply import CompletionReply
from gateway.openai.models import CompletionRequest, stream_options_of
from gateway.openai.reading import fields_of, read_body, tenant_of_request
from gateway.openai.replies import ReplyHead, new_id
from gateway.shapes.text_prompts import (
    TextOrIds,
    check_prompt_logprobs,
    encode_prompts,
    prompts_of,
)


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
        prompts = await off_loop(
            request, body_bytes, lambda: prompts_of(gateway, "prompt", fields.prompt)
        )
        if len(prompts) * n > limits.streams:
            raise bad_field("prompt", f"prompts times n: at most {limits.streams}")
        stream_options = stream_options_of(fields)
        tenant, client_id = tenant_of_request(request, fields), client_of_request(request)
        gateway.require_ready()
        started_s = time.perf_counter()
        encoded = await encode_prompts(gateway, "prompt", fields.prompt, prompts, client_id)
        tokenise_s = time.perf_counter() - started_s
        num_tokens = n * sum(len(prompt.ids) for prompt in encoded)
        if sampling.prompt_logprobs:
            check_prompt_logprobs(gateway, "prompt", num_tokens, sampling.top_logprobs)
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
            fingerprint=gateway.pool.fingerprint(),
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


def _echo(gateway: Gateway, fields: CompletionRequest, prompt: TextOrIds) -> str:
    if not fields.echo:
        return ""
    return prompt if isinstance(prompt, str) else gateway.model.tokenizer.decode(prompt)
