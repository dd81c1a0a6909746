"""POST /api/chat and /api/generate: what does a request ask of the core?"""

from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from gateway.errors import unsupported
from gateway.generate.request import Answers, ChatOptions, Generation
from gateway.http.auth import tenant_of
from gateway.http.context import Gateway
from gateway.http.request_record import RequestRecord
from gateway.http.requests import (
    client_of_request,
    gateway_of,
    json_response,
    read_object,
    recorded,
    session_of,
    thinking_scope,
)
from gateway.http.respond import answer
from gateway.http.typed_body import note_ignored, parse_model
from gateway.ollama.fields import CommonFields, OllamaChatRequest, OllamaGenerateRequest
from gateway.ollama.history import chat_messages
from gateway.ollama.model_list import check_name
from gateway.ollama.reply import Body, OllamaReply, chat_body, generate_body, now
from gateway.ollama.sampling import read_answers
from gateway.text.prompt_encoder import ChatNames, EncodedPrompt

_NAMES = ChatNames(messages="messages", tools="tools")
_PROMPT_NAMES = ChatNames(messages="prompt", tools="tools")
_UNSERVED = {
    "images": "this model reads text only",
    "suffix": "the model cannot fill in the middle",
    "template": "a request cannot bring its own template",
    "context": "send the conversation to /api/chat",
}


Fields = TypeVar("Fields", bound=CommonFields)


async def chat(request: Request) -> Response:
    """The answer to a conversation, with thinking and tool calls."""
    gateway = gateway_of(request)
    with recorded(request, "ollama") as record:
        fields = await _read(request, OllamaChatRequest)
        answers = read_answers(gateway, fields, _options(fields.tools))
        if not fields.messages:
            return _loaded(record, fields, chat_body)
        messages = chat_messages(fields.messages, reads_all=gateway.encoder.reads_all)
        return await _chat(request, record, fields, messages, answers, _NAMES, chat_body)


async def generate(request: Request) -> Response:
    """The answer to one prompt; with `raw` what follows it."""
    gateway = gateway_of(request)
    with recorded(request, "ollama") as record:
        fields = await _read(request, OllamaGenerateRequest)
        for name, why in _UNSERVED.items():
            if getattr(fields, name):
                raise unsupported(name, why)
        answers = read_answers(gateway, fields, None if fields.raw else _options(None))
        if not fields.prompt:
            return _loaded(record, fields, generate_body)
        if not fields.raw:
            system = [{"role": "system", "content": fields.system}] if fields.system else []
            messages = [*system, {"role": "user", "content": fields.prompt}]
            return await _chat(
                request, record, fields, messages, answers, _PROMPT_NAMES, generate_body
            )
        ids = await gateway.encoder.text(
            "prompt",
            fields.prompt,
            max_model_len=gateway.require_ready(),
            client=client_of_request(request),
        )
        asked = Generation(
            request_id=request.state.request_id,
            prompts=[EncodedPrompt(ids=ids, field="prompt")],
            answers=answers,
            tenant=tenant_of(request.state.key_id, ""),
            client_id=client_of_request(request),
            session=session_of(request.headers),
            received_s=record.received_s,
        )
        return await _answered(gateway, request, record, fields, asked, generate_body)


async def _chat(
    request: Request,
    record: RequestRecord,
    fields: CommonFields,
    messages: list[Any],
    answers: Answers,
    names: ChatNames,
    body: Body,
) -> Response:
    gateway = gateway_of(request)
    tenant, client_id = tenant_of(request.state.key_id, ""), client_of_request(request)
    session = session_of(request.headers)
    scope = thinking_scope(request, tenant, session)
    prompt = await gateway.encoder.chat(
        messages,
        list(answers.chat.tools) if answers.chat else [],
        names=names,
        tenant=tenant,
        thinking_scope=scope,
        client=client_id,
        body_bytes=len(await request.body()),
        max_model_len=gateway.require_ready(),
        request_id=request.state.request_id,
        go_on=True,
    )
    asked = Generation(
        request_id=request.state.request_id,
        prompts=[prompt],
        answers=answers,
        tenant=tenant,
        client_id=client_id,
        thinking_scope=scope,
        session=session,
        received_s=record.received_s,
    )
    return await _answered(gateway, request, record, fields, asked, body)


async def _answered(
    gateway: Gateway,
    request: Request,
    record: RequestRecord,
    fields: CommonFields,
    asked: Generation,
    body: Body,
) -> Response:
    choices = gateway.choices(asked)
    reply = OllamaReply(
        choices[0],
        gateway.model,
        name=fields.model,
        body=body,
        show_thinking=fields.think is not False,
    )
    stream = fields.stream is not False
    return await answer(gateway, request, record, choices, reply, stream=stream)


async def _read(request: Request, model: type[Fields]) -> Fields:
    gateway = gateway_of(request)
    body = await read_object(request, gateway.limits, history=_NAMES.messages)
    check_name(gateway, body.get("model"))
    note_ignored(body.keys() - model.model_fields.keys(), gateway.ignored_fields)
    return parse_model(model, body)


def _options(tools: list[Any] | None) -> ChatOptions:
    return ChatOptions(tools=tools or [], numbered_calls=True)


def _loaded(record: RequestRecord, fields: CommonFields, body: Body) -> Response:
    """Asked nothing: clients have a model loaded or unloaded so. This one always is loaded."""
    record.end("ok")
    said = body("", "", ())
    return json_response(
        {
            "model": fields.model,
            "created_at": now(),
            **said,
            "done": True,
            "done_reason": "unload" if fields.keep_alive == 0 else "load",
        }
    )
