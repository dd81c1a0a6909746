"""POST /v1/responses and /v1/responses/input_tokens: what does a request ask of the core?"""

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import fields as fields_of
from functools import partial
from typing import Any, Generic, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from gateway.errors import bad_field, unsupported
from gateway.generate.form import AnswerForm
from gateway.generate.parameters import OutputLength, Parameters, sampling_params, set_logprobs
from gateway.generate.request import Answers, ChatOptions, Generation
from gateway.http.auth import tenant_of
from gateway.http.context import Gateway
from gateway.http.requests import (
    client_of_request,
    counted,
    gateway_of,
    json_response,
    off_loop,
    read_object,
    recorded,
    session_of,
    thinking_scope,
)
from gateway.http.respond import answer
from gateway.http.typed_body import note_ignored, parse_model
from gateway.responses.background import start_answer
from gateway.responses.earlier import Earlier, read_earlier, required_store
from gateway.responses.envelope import check_metadata, response_head
from gateway.responses.fields import InputTokensRequest, ResponsesRequest
from gateway.responses.history import ItemReader
from gateway.responses.keeping import Keeper
from gateway.responses.references import resolved
from gateway.responses.reply import ResponseReply
from gateway.responses.tools import ToolChoice, Tools, read_tools, tool_choice
from gateway.shapes.json_format import json_answer
from gateway.text.prompt_encoder import ChatNames, EncodedPrompt

HISTORY = "input"
_ENCRYPTED = "reasoning.encrypted_content"
_LOGPROBS = "message.output_text.logprobs"
_NOT_KEPT = "store: this server keeps nothing (--response-store none)"
_NOT_DROPPED = "truncation: 'auto' drops nothing here; an input that is too long is refused"

Fields = TypeVar("Fields", bound=InputTokensRequest)


@dataclass(frozen=True, kw_only=True)
class Asked(Generic[Fields]):
    """One request, read."""

    fields: Fields
    given: Any
    """The input, with the items that it only names."""
    tools: Tools
    choice: ToolChoice
    messages: list[dict[str, Any]]
    earlier: Earlier
    tenant: str
    session: str
    scope: str | None
    warnings: Sequence[str]


async def create_response(request: Request) -> Response:
    """One answer to a conversation, in items."""
    gateway = gateway_of(request)
    with recorded(request, "responses") as record:
        asked = await _read(request, ResponsesRequest)
        fields = asked.fields
        answers = _answers(gateway, asked)
        prompt = await _encode(request, asked, gateway.require_ready())
        choices = gateway.choices(
            Generation(
                request_id=request.state.request_id,
                prompts=[prompt],
                answers=answers,
                tenant=asked.tenant,
                client_id=client_of_request(request),
                thinking_scope=asked.scope,
                session=asked.session,
                received_s=record.received_s,
            )
        )
        included = fields.include or ()
        store = gateway.store if fields.store is not False else None
        warnings = [*asked.warnings, *([_NOT_KEPT] if fields.store and store is None else [])]
        reply = ResponseReply(
            choices[0],
            gateway.model,
            head=response_head(
                fields,
                asked.tools,
                gateway.model.defaults,
                warnings,
                is_kept=store is not None,
                earlier=asked.earlier,
            ),
            tools={one.flat: one for one in asked.tools.offered},
            with_logprobs=_LOGPROBS in included,
            seal=partial(gateway.seal.seal, asked.tenant) if _ENCRYPTED in included else None,
        )
        if store is None:
            return await answer(
                gateway, request, record, choices, reply, stream=bool(fields.stream)
            )
        keeper = Keeper(
            store,
            asked.tenant,
            reply,
            asked.given,
            asked.earlier,
            partial(off_loop, request, len(await request.body())),
        )
        if fields.background:
            return await start_answer(
                gateway, request, record, choices, reply, keeper, stream=bool(fields.stream)
            )
        return await answer(
            gateway,
            request,
            record,
            choices,
            reply,
            stream=bool(fields.stream),
            before_end=keeper.keep,
        )


async def count_input_tokens(request: Request) -> Response:
    """How many tokens the prompt of such a request has."""
    with counted(request):
        asked = await _read(request, InputTokensRequest)
        prompt = await _encode(request, asked, gateway_of(request).max_model_len)
        told = {"object": "response.input_tokens", "input_tokens": len(prompt.ids)}
        return json_response(told)


async def _read(request: Request, model: type[Fields]) -> Asked[Fields]:
    gateway = gateway_of(request)
    body = await read_object(request, gateway.limits, history=HISTORY)
    gateway.check_model(body.get("model"))
    note_ignored(body.keys() - model.model_fields.keys(), gateway.ignored_fields)
    fields = parse_model(model, body)
    if fields.truncation not in (None, "auto", "disabled"):
        raise bad_field("truncation", "must be 'auto' or 'disabled'")
    tenant = tenant_of(request.state.key_id, "")
    earlier = await read_earlier(request, tenant, fields)
    given = await resolved(request, tenant, fields.input, HISTORY)
    session = session_of(request.headers, fields.prompt_cache_key, fields.user)
    tools = read_tools(fields.tools)
    reader = ItemReader(partial(gateway.seal.open, tenant), reads_all=gateway.encoder.reads_all)
    messages = reader.read(fields.instructions, given, earlier)
    choice = tool_choice(fields.tool_choice, tools)
    notes = [_NOT_DROPPED] if fields.truncation == "auto" else []
    return Asked(
        fields=fields,
        given=given,
        tools=tools,
        choice=choice,
        messages=messages,
        earlier=earlier,
        tenant=tenant,
        session=session,
        scope=thinking_scope(request, tenant, session),
        warnings=[*tools.warnings, *tools.not_enforced(choice), *reader.warnings, *notes],
    )


async def _encode(request: Request, asked: Asked[Any], max_model_len: int) -> EncodedPrompt:
    seen = asked.tools.seen(asked.choice)
    places = tuple(one.place for one in seen)
    return await gateway_of(request).encoder.chat(
        asked.messages,
        [{"type": "function", "function": one.function} for one in seen],
        names=ChatNames(messages=HISTORY, tools="tools", function="", places=places),
        tenant=asked.tenant,
        thinking_scope=asked.scope,
        client=client_of_request(request),
        body_bytes=len(await request.body()) + asked.earlier.size_bytes,
        max_model_len=max_model_len,
        request_id=request.state.request_id,
    )


def _answers(gateway: Gateway, asked: Asked[ResponsesRequest]) -> Answers:
    """Check everything that needs no prompt. Raises RequestError naming the field."""
    fields, choice, limits = asked.fields, asked.choice, gateway.limits
    if fields.prompt is not None:
        raise unsupported("prompt", "no templates are kept here: send the input itself")
    if fields.background:
        required_store(gateway, "background")
        if fields.store is False:
            raise bad_field("store", "background needs it: the answer is fetched by its id")
    check_metadata(fields.metadata)
    most = fields.max_output_tokens
    if most is not None and most < 1:
        raise bad_field("max_output_tokens", f"must be at least 1, got {most}")
    given = {one.name: getattr(fields, one.name, None) for one in fields_of(Parameters)}
    sampling = sampling_params(
        Parameters(**given),
        gateway.model.defaults,
        vocab_size=gateway.model.config.vocab_size,
        limits=limits,
    )
    if _LOGPROBS in (fields.include or ()):
        set_logprobs(sampling, fields.top_logprobs or 0, "top_logprobs", limits)
    elif fields.top_logprobs:
        raise bad_field("top_logprobs", f"needs {_LOGPROBS!r} in include")
    return Answers(
        sampling=sampling,
        length=OutputLength(
            most=most, most_field="max_output_tokens", least_field="max_output_tokens"
        ),
        form=AnswerForm(
            json=json_answer("text.format", fields.text and fields.text.format, limits),
            must_call=choice.must_call,
            only_tools=choice.only,
            patterns=asked.tools.patterns,
            field="tools" if choice.must_call else "text.format.schema",
        ),
        chat=ChatOptions(
            tools=[
                {"type": "function", "function": one.function} for one in asked.tools.seen(choice)
            ],
            may_call=choice.may_call,
            several_calls=fields.parallel_tool_calls is not False,
        ),
    )
