"""How is an answer made while its client does not wait?"""

import logging
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from gateway.errors import RequestError, bad_field, internal
from gateway.generate.choice_streams import Choice
from gateway.http.context import Gateway
from gateway.http.dialect import KEEPALIVE
from gateway.http.event_log import EventLog, EventLost
from gateway.http.request_record import RequestRecord
from gateway.http.requests import json_response
from gateway.http.respond import STREAM_HEADERS, end_answer
from gateway.responses.earlier import not_found, unreachable
from gateway.responses.keeping import Keeper
from gateway.responses.reply import ResponseReply
from gateway.store.response_store import StoreError, UnknownEntry

log = logging.getLogger(__name__)


async def start_answer(
    gateway: Gateway,
    request: Request,
    record: RequestRecord,
    choices: list[Choice],
    reply: ResponseReply,
    keeper: Keeper,
    *,
    stream: bool,
) -> Response:
    """The response in progress, or a stream of it. It goes on by itself. Raises RequestError."""
    key_id, response = request.state.key_id, reply.response()
    gateway.background.check_room(key_id)
    try:
        await keeper.begin()
    except StoreError as error:
        raise unreachable(error) from None
    except UnknownEntry as error:
        raise not_found("Response", error.id, "previous_response_id") from None
    request_id: str = request.state.request_id
    events = gateway.background.logs.begin(response["id"]) if stream else None
    work = _make_answer(gateway, record, choices, reply, keeper, request_id, events)
    gateway.background.start(response["id"], key_id, work)
    return json_response(response) if events is None else followed(gateway, events, 0)


def followed(gateway: Gateway, events: EventLog, number: int) -> Response:
    """A stream from this event on. Raises RequestError if it is no longer kept."""
    try:
        events.check(number)
    except EventLost as error:
        raise bad_field("starting_after", str(error)) from None
    return StreamingResponse(
        _read(gateway, events, number), media_type="text/event-stream", headers=STREAM_HEADERS
    )


async def _read(gateway: Gateway, events: EventLog, number: int) -> AsyncIterator[bytes]:
    try:
        async for event in events.read(number, gateway.limits.keepalive_s):
            yield event or KEEPALIVE
    except EventLost as error:  # the stream ends: what comes next would not belong to it
        log.info("a stream is read too slowly: %s", error)


async def _make_answer(
    gateway: Gateway,
    record: RequestRecord,
    choices: list[Choice],
    reply: ResponseReply,
    keeper: Keeper,
    request_id: str,
    events: EventLog | None,
) -> None:
    """Run the choice to its end, which may be an error, keep it, and tell it."""
    if events is not None:
        events.add(reply.opening())
    record.queued(sum(choice.state.num_prompt_tokens for choice in choices))
    streams = gateway.start(choices, lambda choice, count: record.tokens(choice.index, count))
    error: RequestError | None = None
    try:
        while batch := await streams.next_batch():
            for update in batch:
                if events is None:
                    reply.collect(update)
                else:
                    events.add(reply.chunks(update))
        response = reply.response()
    except RequestError as failure:
        error, response = failure, reply.failed_response(failure, request_id)
    # Nobody waits who could be told: logged with its traceback, and kept as the answer's end.
    except Exception:
        log.exception("request %s failed in the background", request_id)
        error = internal()
        response = reply.failed_response(error, request_id)
    finally:
        await end_answer(gateway, record, streams, error)
    try:
        await keeper.end(response)
    except (
        RequestError,
        StoreError,
        UnknownEntry,
    ) as failure:  # it stays in progress until its lease is over
        log.warning("request %s: its end is not kept: %s", request_id, failure)
        reply.note_not_kept(str(failure))
    if events is not None:
        events.add(reply.closing() if error is None else reply.failed(error, request_id))
