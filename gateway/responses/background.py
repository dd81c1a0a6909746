"""How is an answer made while its client does not wait?"""

import logging

from starlette.requests import Request
from starlette.responses import Response

from gateway.errors import RequestError, internal
from gateway.generate.choice_streams import Choice
from gateway.http.context import Gateway
from gateway.http.request_record import RequestRecord
from gateway.http.requests import json_response
from gateway.http.respond import end_answer
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
) -> Response:
    """The response in progress, which goes on by itself. Raises RequestError."""
    key_id, response = request.state.key_id, reply.response()
    gateway.background.check_room(key_id)
    try:
        await keeper.begin()
    except StoreError as error:
        raise unreachable(error) from None
    except UnknownEntry as error:
        raise not_found("Response", error.id, "previous_response_id") from None
    request_id: str = request.state.request_id
    work = _make_answer(gateway, record, choices, reply, keeper, request_id)
    gateway.background.start(response["id"], key_id, work)
    return json_response(response)


async def _make_answer(
    gateway: Gateway,
    record: RequestRecord,
    choices: list[Choice],
    reply: ResponseReply,
    keeper: Keeper,
    request_id: str,
) -> None:
    """Run the choice to its end, which may be an error, and keep it."""
    record.queued(sum(choice.state.num_prompt_tokens for choice in choices))
    streams = gateway.start(choices, lambda choice, count: record.tokens(choice.index, count))
    error: RequestError | None = None
    try:
        while batch := await streams.next_batch():
            for update in batch:
                reply.collect(update)
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
