"""POST /v1/chat/completions: which choices does a chat request ask for?"""

import time
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.errors import bad_field
from gateway.generate.choice_streams import Choice
from gateway.generate.grammar import RequestGrammar
from gateway.generate.request import (
    client_of_request,
    new_request,
    output_limit,
    starts_in_reasoning,
    stop_ids_of,
    tenant_of_request,
)
from gateway.generate.stream_state import StreamState
from gateway.http.context import Gateway
from gateway.http.requests import gateway_of, read_object, recorded
from gateway.http.respond import answer
from gateway.openai.chat_reply import ChatReply
from gateway.openai.models import ChatRequest, StreamOptions, parse_model, stream_options_of
from gateway.openai.replies import ReplyHead, new_id, now
from gateway.openai.sampling import (
    num_choices,
    sampling_params,
    set_logprobs,
    set_output_length,
    stop_strings,
)
from gateway.openai.structured import AnswerShape, answer_shape, grammar_of
from gateway.text.choice_text import ChatText
from moe_model.chat.tools import without_null
from moe_model.families.minimax_m2.parser import OutputParser
from protos import attention_pb2


@dataclass(frozen=True, kw_only=True)
class _ChatPlan:
    """A checked request, before its prompt is known."""

    fields: ChatRequest
    sampling: attention_pb2.SamplingParams
    num_choices: int
    stops: list[str]
    tools: list[Any]
    shape: AnswerShape
    stream_options: StreamOptions
    max_tokens: int | None
    max_tokens_field: str
    tenant: str
    client_id: str


async def chat_completions(request: Request) -> Response:
    """Validate, render, encode, generate."""
    gateway = gateway_of(request)
    with recorded(request, "chat") as record:
        body = await read_object(request, gateway.limits)
        gateway.check_model(body.get("model"))
        gateway.rules.check(body, ChatRequest.model_fields)
        fields = parse_model(ChatRequest, body)
        plan = _plan(
            gateway,
            fields,
            tenant=tenant_of_request(gateway, request, fields),
            client_id=client_of_request(request),
        )
        started_s = time.perf_counter()
        prompt = await gateway.encoder.chat(
            plan.fields.messages,
            plan.tools,
            tenant=plan.tenant,
            client=plan.client_id,
            body_bytes=len(await request.body()),
            max_model_len=gateway.require_ready(),
            request_id=request.state.request_id,
        )
        tokenise_s = time.perf_counter() - started_s
        choices = _choices(
            gateway, request.state.request_id, plan, prompt, received_s=record.received_s
        )
        stream = bool(plan.fields.stream)
        head = ReplyHead(
            id=new_id("chatcmpl-"),
            object="chat.completion.chunk" if stream else "chat.completion",
            model=gateway.model.name,
            created=now(),
            choices=choices,
            prompts=1,
            tokenise_s=tokenise_s,
            with_timings=bool(plan.fields.expertmesh_timings),
            stream_options=plan.stream_options,
        )
        reply = ChatReply(
            head,
            gateway.model,
            with_logprobs=plan.sampling.logprobs,
            remember_thinking=partial(gateway.encoder.thinking.remember, plan.tenant),
        )
        return await answer(gateway, request, record, choices, reply, stream=stream)


def _plan(gateway: Gateway, fields: ChatRequest, *, tenant: str, client_id: str) -> _ChatPlan:
    """Check everything that needs no prompt. Raises ApiError 400 naming the field."""
    sampling = sampling_params(
        fields,
        gateway.model.defaults,
        vocab_size=gateway.model.config.vocab_size,
        limits=gateway.limits,
    )
    if fields.logprobs:
        set_logprobs(sampling, fields.top_logprobs or 0, "top_logprobs", gateway.limits)
    elif fields.top_logprobs:
        raise bad_field("top_logprobs", "needs logprobs: true")
    max_tokens, max_tokens_field = output_limit(fields.max_tokens, fields.max_completion_tokens)
    return _ChatPlan(
        fields=fields,
        sampling=sampling,
        num_choices=num_choices(fields.n, gateway.limits),
        stops=stop_strings(fields.stop, gateway.limits),
        tools=[] if fields.tool_choice == "none" else fields.tools or [],
        shape=answer_shape(
            fields.response_format, fields.tool_choice, fields.tools, gateway.limits
        ),
        stream_options=stream_options_of(fields),
        max_tokens=max_tokens,
        max_tokens_field=max_tokens_field,
        tenant=tenant,
        client_id=client_id,
    )


def _most_tokens(gateway: Gateway, plan: _ChatPlan) -> int | None:
    """A model that is made to call a tool which it cannot use may never end by itself."""
    if plan.max_tokens is None and plan.shape.must_call:
        return max(gateway.config.forced_call_tokens, plan.fields.min_tokens or 0)
    return plan.max_tokens


def _choices(
    gateway: Gateway,
    request_id: str,
    plan: _ChatPlan,
    prompt: list[int],
    *,
    received_s: float,
) -> list[Choice]:
    """One choice per `n`. Raises ApiError 400 when the prompt leaves no room."""
    set_output_length(
        plan.sampling,
        num_prompt_tokens=len(prompt),
        max_tokens=_most_tokens(gateway, plan),
        min_tokens=plan.fields.min_tokens,
        max_model_len=gateway.max_model_len,
        max_tokens_field=plan.max_tokens_field,
        prompt_field="messages",
    )

    def remember(state: StreamState) -> None:
        gateway.encoder.emitted_ids.remember(plan.tenant, prompt, state.emitted_token_ids)

    thinks = starts_in_reasoning(gateway, prompt)
    several_calls = plan.fields.parallel_tool_calls is not False
    tools = [{**tool, "function": without_null(tool["function"])} for tool in plan.tools]
    text = grammar_of(
        plan.shape,
        tools,
        several_calls=several_calls,
        marker_ids=gateway.model.tokenizer.marker_ids,
    )
    grammar = RequestGrammar(text, plan.shape.field) if text is not None else None
    stop_ids = stop_ids_of(gateway, plan.sampling)
    return [
        Choice(
            index=index,
            state=StreamState(
                request=new_request(
                    gateway,
                    request_id=request_id,
                    prompt=prompt,
                    sampling=plan.sampling,
                    choice_idx=index,
                    tenant=plan.tenant,
                    client_id=plan.client_id,
                    fields=plan.fields,
                    thinks=thinks,
                ),
                grammar=grammar,
                received_s=received_s,
            ),
            text=ChatText(
                gateway.model.tokenizer,
                parser=OutputParser(
                    tools=tools,
                    starts_in_reasoning=thinks,
                    parallel_tool_calls=several_calls,
                ),
                stops=plan.stops,
                reasoning_in_content=plan.fields.reasoning_split is False,
            ),
            stop_ids=stop_ids,
            vocab_size=gateway.model.config.vocab_size,
            on_finished=remember,
        )
        for index in range(plan.num_choices)
    ]
