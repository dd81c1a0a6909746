"""POST /v1/messages and /v1/messages/count_tokens: what does a request ask of the core?"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from gateway.anthropic.fields import (
    SHOWS_THINKING,
    THINKING_TYPES,
    CountTokensRequest,
    MessagesRequest,
)
from gateway.anthropic.history import chat_messages, thinking_blocks
from gateway.anthropic.reply import CALL_PREFIX, MessageReply
from gateway.anthropic.tools import ToolChoice, answer_form, function_tools, tool_choice
from gateway.errors import bad_field, unsupported
from gateway.generate.parameters import (
    OutputLength,
    Parameters,
    check_stop_strings,
    sampling_params,
)
from gateway.generate.request import Answers, ChatOptions, Generation
from gateway.http.auth import tenant_of
from gateway.http.context import Gateway
from gateway.http.requests import (
    client_of_request,
    counted,
    gateway_of,
    json_response,
    read_object,
    recorded,
    session_of,
    thinking_scope,
)
from gateway.http.respond import answer
from gateway.http.typed_body import note_ignored, parse_model
from gateway.text.prompt_encoder import ChatNames, EncodedPrompt

NAMES = ChatNames(messages="messages", tools="tools", function="", parameters=".input_schema")

Fields = TypeVar("Fields", bound=CountTokensRequest)


async def messages(request: Request) -> Response:
    """One answer to a conversation, in content blocks."""
    gateway = gateway_of(request)
    with recorded(request, "messages") as record:
        fields = await _read(request, MessagesRequest)
        tools = function_tools(fields.tools)
        choice = tool_choice(fields.tool_choice, tools)
        answers = _answers(gateway, fields, tools, choice)
        _note_signatures(gateway, fields)
        prompt = await _encode(request, fields, tools, gateway.require_ready())
        choices = gateway.choices(
            Generation(
                request_id=request.state.request_id,
                prompts=[prompt],
                answers=answers,
                tenant=_tenant(request),
                client_id=client_of_request(request),
                thinking_scope=_thinking_scope(request, fields),
                session=_session(request, fields),
                received_s=record.received_s,
            )
        )
        thinking = fields.thinking
        reply = MessageReply(
            choices[0],
            model=fields.model,
            asked_tokens=fields.max_tokens,
            show_thinking=thinking is not None and thinking.type in SHOWS_THINKING,
            thinking_text=thinking is None or thinking.display != "omitted",
            sign=gateway.signatures.sign,
        )
        return await answer(gateway, request, record, choices, reply, stream=bool(fields.stream))


async def count_tokens(request: Request) -> Response:
    """How many tokens the prompt of such a message has."""
    with counted(request):
        fields = await _read(request, CountTokensRequest)
        tools = function_tools(fields.tools)
        tool_choice(fields.tool_choice, tools)
        prompt = await _encode(request, fields, tools, gateway_of(request).max_model_len)
        return json_response({"input_tokens": len(prompt.ids)})


async def _read(request: Request, model: type[Fields]) -> Fields:
    gateway = gateway_of(request)
    body = await read_object(request, gateway.limits, history=NAMES.messages)
    gateway.check_model(body.get("model"))
    note_ignored(body.keys() - model.model_fields.keys(), gateway.ignored_fields)
    fields = parse_model(model, body)
    if fields.thinking is not None and fields.thinking.type not in THINKING_TYPES:
        raise bad_field("thinking.type", f"must be one of {', '.join(THINKING_TYPES)}")
    return fields


async def _encode(
    request: Request, fields: CountTokensRequest, tools: list[dict[str, Any]], max_model_len: int
) -> EncodedPrompt:
    gateway = gateway_of(request)
    return await gateway.encoder.chat(
        chat_messages(fields.system, fields.messages, reads_all=gateway.encoder.reads_all),
        tools,
        names=NAMES,
        tenant=_tenant(request),
        thinking_scope=_thinking_scope(request, fields),
        client=client_of_request(request),
        body_bytes=len(await request.body()),
        max_model_len=max_model_len,
        go_on=True,
        request_id=request.state.request_id,
    )


def _answers(
    gateway: Gateway, fields: MessagesRequest, tools: Sequence[Any], choice: ToolChoice
) -> Answers:
    """Check everything that needs no prompt. Raises RequestError naming the field."""
    limits = gateway.limits
    for name in ("mcp_servers", "container"):
        if getattr(fields, name):
            raise unsupported(name, "this server runs no tools")
    if fields.max_tokens < 1:
        raise bad_field("max_tokens", f"must be at least 1, got {fields.max_tokens}")
    stops = fields.stop_sequences or []
    check_stop_strings(stops, "stop_sequences", limits)
    return Answers(
        sampling=sampling_params(
            Parameters(temperature=fields.temperature, top_p=fields.top_p, top_k=fields.top_k),
            gateway.model.defaults,
            vocab_size=gateway.model.config.vocab_size,
            limits=limits,
        ),
        length=OutputLength(
            most=fields.max_tokens, most_field="max_tokens", least_field="max_tokens"
        ),
        stops=stops,
        form=answer_form(fields, choice, limits),
        chat=ChatOptions(
            tools=tools,
            may_call=choice.may_call,
            several_calls=choice.several_calls,
            call_prefix=CALL_PREFIX,
        ),
    )


def _tenant(request: Request) -> str:
    return tenant_of(request.state.key_id, "")


def _thinking_scope(request: Request, fields: CountTokensRequest) -> str | None:
    return thinking_scope(request, _tenant(request), _session(request, fields))


def _session(request: Request, fields: CountTokensRequest) -> str:
    """What ties this request to others of one conversation, if the client says."""
    user: Mapping[str, Any] = fields.metadata or {}
    return session_of(request.headers, user.get("user_id"))


def _note_signatures(gateway: Gateway, fields: CountTokensRequest) -> None:
    for block in thinking_blocks(fields.messages):
        gateway.metrics.thinking_signatures.labels(gateway.signatures.verdict(block)).inc()
