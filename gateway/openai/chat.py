"""POST /v1/chat/completions: what does a chat request ask of the core?"""

import time

from starlette.requests import Request
from starlette.responses import Response

from gateway.errors import bad_field
from gateway.generate.parameters import set_logprobs
from gateway.generate.request import Answers, ChatOptions, EncodedPrompt, Generation
from gateway.http.context import Gateway
from gateway.http.requests import client_of_request, gateway_of, recorded
from gateway.http.respond import answer
from gateway.openai.chat_form import chat_form
from gateway.openai.chat_reply import ChatReply
from gateway.openai.models import ChatRequest, stream_options_of
from gateway.openai.reading import CHAT_NAMES, fields_of, read_body, tenant_of_request
from gateway.openai.replies import ReplyHead, new_id
from gateway.openai.sampling import num_choices, output_length, read_sampling, stop_strings


async def chat_completions(request: Request) -> Response:
    """Validate, render, encode, generate."""
    gateway = gateway_of(request)
    with recorded(request, "chat") as record:
        body = await read_body(request)
        gateway.check_model(body.get("model"))
        fields = fields_of(request, body, ChatRequest)
        tenant, client_id = tenant_of_request(request, fields), client_of_request(request)
        answers, options = _answers(gateway, fields)
        stream_options = stream_options_of(fields)
        started_s = time.perf_counter()
        ids = await gateway.encoder.chat(
            fields.messages,
            list(options.tools),
            names=CHAT_NAMES,
            tenant=tenant,
            client=client_id,
            body_bytes=len(await request.body()),
            max_model_len=gateway.require_ready(),
            request_id=request.state.request_id,
        )
        tokenise_s = time.perf_counter() - started_s
        choices = gateway.choices(
            Generation(
                request_id=request.state.request_id,
                prompts=[EncodedPrompt(ids=ids, field=CHAT_NAMES.messages)],
                answers=answers,
                tenant=tenant,
                client_id=client_id,
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
        )
        reply = ChatReply(head, gateway.model, with_logprobs=bool(fields.logprobs))
        return await answer(gateway, request, record, choices, reply, stream=stream)


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
    options = ChatOptions(
        tools=[] if fields.tool_choice == "none" else fields.tools or [],
        several_calls=fields.parallel_tool_calls is not False,
        thinking_in_content=fields.reasoning_split is False,
    )
    answers = Answers(
        sampling=sampling,
        length=output_length(fields, fields.max_completion_tokens),
        num_choices=num_choices(fields.n, limits),
        stops=stop_strings(fields.stop, limits),
        form=chat_form(fields.response_format, fields.tool_choice, fields.tools, limits),
        chat=options,
    )
    return answers, options
