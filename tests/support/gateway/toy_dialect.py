"""A second API over the gateway's core, unlike OpenAI's in its fields, events and errors."""

from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from gateway.errors import Kind, RequestError, bad_field
from gateway.generate.choice_streams import Finish, Update
from gateway.generate.form import AnswerForm
from gateway.generate.parameters import OutputLength, Parameters, sampling_params
from gateway.generate.request import Answers, ChatOptions, Generation
from gateway.http.auth import tenant_of
from gateway.http.dialect import Dialect
from gateway.http.errors import STATUS
from gateway.http.requests import client_of_request, gateway_of, read_object, recorded
from gateway.http.respond import answer
from gateway.text.prompt_encoder import ChatNames
from moe_model.chat.events import ContentDelta, ReasoningDelta, ToolCallArguments, ToolCallStart

NAMES = ChatNames(messages="turns", tools="gadgets")
ENDS = {Finish.STOP: "done", Finish.LENGTH: "cut", Finish.CALLS: "waits"}
OVERLOADED = 529


class ToyRequest(BaseModel):
    """POST /toy/ask."""

    model_config = ConfigDict(strict=True)

    model: str
    turns: list[Any]
    gadgets: list[Any] = []
    cap: int
    must_use: bool = False
    temperature: float | None = None
    live: bool = False


class ToyErrors:
    """Its own statuses and shape."""

    def status(self, error: RequestError) -> int:
        return OVERLOADED if error.kind is Kind.OVERLOADED else STATUS[error.kind]

    def body(self, error: RequestError, request_id: str | None) -> bytes:
        told = {"oops": error.kind.value, "text": error.message, "where": error.field}
        return orjson.dumps({**told, "call": request_id})


class ToyReply:
    """Its own events, and one object of parts."""

    def __init__(self) -> None:
        self._parts: list[dict[str, Any]] = []
        self._end: dict[str, Any] = {}

    def chunks(self, update: Update) -> bytes:
        parts = self._read(update)
        return b"".join(b"event: part\ndata: " + orjson.dumps(part) + b"\n\n" for part in parts)

    def closing(self) -> bytes:
        return b"event: over\ndata: " + orjson.dumps(self._end) + b"\n\n"

    def failed(self, error: RequestError, request_id: str) -> bytes:
        return b"event: oops\ndata: " + ToyErrors().body(error, request_id) + b"\n\n"

    def keepalive(self) -> bytes:
        return b": wait\n\n"

    def collect(self, update: Update) -> None:
        self._parts += self._read(update)

    def whole(self) -> bytes:
        return orjson.dumps({"parts": self._parts, **self._end})

    def _read(self, update: Update) -> list[dict[str, Any]]:
        parts: list[dict[str, Any]] = []
        call_ids = iter(update.call_ids)
        for event in update.events:
            if isinstance(event, ContentDelta):
                parts.append({"say": event.text})
            elif isinstance(event, ReasoningDelta):
                parts.append({"think": event.text})
            elif isinstance(event, ToolCallStart):
                parts.append({"use": event.name, "id": next(call_ids)})
            elif isinstance(event, ToolCallArguments):
                parts.append({"with": event.fragment})
        if update.finish is not None:
            self._end = {"why": ENDS[update.finish]}
        return parts


async def ask(request: Request) -> Response:
    """One answer to the turns so far."""
    gateway = gateway_of(request)
    with recorded(request, "toy") as record:
        body = await read_object(request, gateway.limits, history=NAMES.messages)
        try:
            fields = ToyRequest.model_validate(body)
        except ValidationError as error:
            raise bad_field(str(error.errors()[0]["loc"][0]), error.errors()[0]["msg"]) from None
        gateway.check_model(fields.model)
        tenant, client_id = tenant_of(request.state.key_id, ""), client_of_request(request)
        prompt = await gateway.encoder.chat(
            fields.turns,
            fields.gadgets,
            names=NAMES,
            tenant=tenant,
            thinking_scope=tenant,
            client=client_id,
            body_bytes=len(await request.body()),
            max_model_len=gateway.require_ready(),
        )
        answers = Answers(
            sampling=sampling_params(
                Parameters(temperature=fields.temperature),
                gateway.model.defaults,
                vocab_size=gateway.model.config.vocab_size,
                limits=gateway.limits,
            ),
            length=OutputLength(most=fields.cap, most_field="cap", least_field="cap"),
            form=AnswerForm(must_call=fields.must_use, field=NAMES.tools),
            chat=ChatOptions(tools=fields.gadgets, call_prefix="toy-"),
        )
        choices = gateway.choices(
            Generation(
                request_id=request.state.request_id,
                prompts=[prompt],
                answers=answers,
                tenant=tenant,
                client_id=client_id,
                thinking_scope=tenant,
                received_s=record.received_s,
            )
        )
        return await answer(gateway, request, record, choices, ToyReply(), stream=fields.live)


TOY = Dialect(errors=ToyErrors(), prefixes=("/toy",), posts=(("/toy/ask", ask, ToyRequest),))
