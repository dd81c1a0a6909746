"""POST /v1/chat/completions: what does a chat request ask of the core?"""

import time
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.errors import bad_field, unsupported
from gateway.generate.parameters import set_logprobs
from gateway.generate.request import Answers, ChatOptions, Generation
from gateway.http.context import Gateway
from gateway.http.requests import (
    client_of_request,
    gateway_of,
    recorded,
    session_of,
    thinking_scope,
)
from gateway.http.respond import answer
from gateway.http.typed_body import note_ignored
from gateway.openai.answer_form import answer_form, tools_to_show
from gateway.openai.chat_reply import ChatReply
from gateway.openai.models import ChatRequest, stream_options_of
from gateway.openai.reading import (
    CHAT_NAMES,
    fields_of,
    read_body,
    tenant_of_request,
)
from gateway.openai.replies import ReplyHead, new_id
from gateway.openai.sampling import (
    bad_words,
    num_choices,
    output_length,
    read_sampling,
    stop_strings,
)

MINIMAX_NAME = "MiniMax-M2"


async def chat_completions(request: Request) -> Response:
    """Validate, render, encode, generate."""
    return await _chat(request, {})


async def minimax_chat_completions(request: Request) -> Response:
    """The same as MiniMax's own service has it: thinking in the content, and its model's name."""
    return await _chat(request, {"reasoning_split": False}, alias=MINIMAX_NAME)


async def _chat(request: Request, defaults: dict[str, Any], alias: str | None = None) -> Response:
    gateway = gateway_of(request)
    with recorded(request, "chat") as record:
        given = await read_body(request)
        body = {**given, **{k: v for k, v in defaults.items() if given.get(k) is None}}
        if alias is not None and body.get("model") == alias:
            body["model"] = gateway.model.name
        gateway.check_model(body.get("model"))
        fields = fields_of(request, body, ChatRequest)
        tenant, client_id = tenant_of_request(request, fields), client_of_request(request)
        _check_template_variables(gateway, fields.chat_template_kwargs or {})
        answers, options = _answers(gateway, fields)
        stream_options = stream_options_of(fields)
        session = session_of(request.headers, fields.prompt_cache_key, fields.user)
        scope = thinking_scope(request, tenant, session)
        started_s = time.perf_counter()
        prompt = await gateway.encoder.chat(
            fields.messages,
            list(options.tools),
            names=CHAT_NAMES,
            tenant=tenant,
            thinking_scope=scope,
            client=client_id,
            body_bytes=len(await request.body()),
            go_on=bool(fields.continue_final_message),
            max_model_len=gateway.require_ready(),
            request_id=request.state.request_id,
        )
        tokenise_s = time.perf_counter() - started_s
        choices = gateway.choices(
            Generation(
                request_id=request.state.request_id,
                prompts=[prompt],
                answers=answers,
                tenant=tenant,
                client_id=client_id,
                thinking_scope=scope,
                session=session,
                with_timings=bool(fields.expertmesh_timings),
                received_s=record.received_s,
            )
        )
        stream = bool(fields.stream)
        head = ReplyHead(
            id=new_id("chatcmpl-"),
            object="chat.completion.chunk" if stream else "chat.completion",
            model=gateway.model.name,
            choices=choices,
            prompts=1,
            tokenise_s=tokenise_s,
            with_timings=bool(fields.expertmesh_timings),
            stream_options=stream_options,
            fingerprint=gateway.pool.fingerprint(),
        )
        reply = ChatReply(
            head,
            gateway.model,
            with_logprobs=bool(fields.logprobs),
            with_token_ids=bool(fields.return_token_ids),
        )
        return await answer(gateway, request, record, choices, reply, stream=stream)


def _check_template_variables(gateway: Gateway, variables: dict[str, Any]) -> None:
    """Refuse those that would change the prompt. M2's template has none for thinking, e.g."""
    for name in sorted(variables.keys() & gateway.model.template.variables):
        raise unsupported(f"chat_template_kwargs.{name}", "the template's variables are fixed")
    note_ignored((f"chat_template_kwargs.{name}" for name in variables), gateway.ignored_fields)


def _answers(gateway: Gateway, fields: ChatRequest) -> tuple[Answers, ChatOptions]:
    """Check everything that needs no prompt. Raises RequestError naming the field."""
    limits = gateway.limits
    sampling = read_sampling(
        fields,
        gateway.model.defaults,
        vocab_size=gateway.model.config.vocab_size,
        limits=limits,
    )
    if fields.logprobs:
        set_logprobs(sampling, fields.top_logprobs or 0, "top_logprobs", limits)
    elif fields.top_logprobs:
        raise bad_field("top_logprobs", "needs logprobs: true")
    if fields.add_generation_prompt is False and not fields.continue_final_message:
        raise bad_field("add_generation_prompt", "false needs continue_final_message: true")
    last = fields.messages[-1] if fields.messages else None
    if fields.continue_final_message and isinstance(last, dict) and last.get("role") != "assistant":
        raise bad_field("continue_final_message", "the last message must be an assistant's")
    tools = fields.tools or []
    form = answer_form(fields, limits, tool_choice=fields.tool_choice, tools=tools)
    options = ChatOptions(
        tools=tools_to_show(fields.tool_choice, tools),
        may_call=fields.tool_choice != "none",
        several_calls=fields.parallel_tool_calls is not False,
        thinking_in_content=fields.reasoning_split is False,
    )
    answers = Answers(
        sampling=sampling,
        length=output_length(fields, fields.max_completion_tokens),
        num_choices=num_choices(fields.n, limits),
        stops=stop_strings(fields.stop, limits),
        bad_words=bad_words(fields, limits),
        form=form,
        chat=options,
    )
    return answers, options
