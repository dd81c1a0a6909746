"""How are choices answered over HTTP, streamed or whole, and cancelled when nobody reads?"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from gateway.errors import RequestError, internal
from gateway.generate.choice_streams import Choice, ChoiceStreams, Update
from gateway.http.context import Gateway
from gateway.http.dialect import ReplyWriter
from gateway.http.request_record import RequestRecord, outcome_of_error

log = logging.getLogger(__name__)

Result = TypeVar("Result")

STREAM_HEADERS = {
    "Cache-Control": "no-cache",
    "Connection": "keep-alive",
    "X-Accel-Buffering": "no",  # nginx passes each event on at once
}


class ClientGone(Exception):
    """The client closed the connection before its answer was complete."""


async def unless_disconnected(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Await `work`, cancelled as soon as the client is gone. Raises ClientGone.

    The body must have been read: the next message can only be the disconnect.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request.receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGone
    finally:
        gone.cancel()
        task.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _nothing() -> None:
    """There is nothing to do before the end."""


async def answer(
    gateway: Gateway,
    request: Request,
    record: RequestRecord,
    choices: list[Choice],
    reply: ReplyWriter,
    *,
    stream: bool,
    before_end: Callable[[], Awaitable[None]] = _nothing,
) -> Response:
    """Run the choices and answer. Early refusals of the attention service have a status.

    `before_end` is awaited when all has been generated, before the answer ends.

    Raises RequestError or ClientGone before anything was sent; `record` is ended here otherwise.
    """
    record.queued(sum(choice.state.num_prompt_tokens for choice in choices))
    streams = gateway.start(choices, lambda choice, count: record.tokens(choice.index, count))
    try:
        if not stream:
            body = await unless_disconnected(request, _collect(streams, reply, before_end))
            await end_answer(gateway, record, streams, None)
            return Response(body, media_type="application/json")
        limits = gateway.limits
        has_grammar = choices[0].state.grammar is not None
        wait_s = limits.grammar_error_wait_s if has_grammar else limits.early_error_wait_s
        first = await unless_disconnected(request, streams.next_batch(wait_s))
    except BaseException:
        await gateway.finish(streams)
        raise
    return _StreamedAnswer(gateway, request, record, streams, reply, first, before_end)


async def _collect(
    streams: ChoiceStreams, reply: ReplyWriter, before_end: Callable[[], Awaitable[None]]
) -> bytes:
    while batch := await streams.next_batch():
        for update in batch:
            reply.collect(update)
    await before_end()
    return reply.whole()


async def end_answer(
    gateway: Gateway, record: RequestRecord, streams: ChoiceStreams, error: RequestError | None
) -> None:
    """Cancel what still runs, and count what came of the choices."""
    await gateway.finish(streams)
    for choice in streams.choices:
        gateway.metrics.tool_calls.inc(choice.text.tool_calls)
        gateway.metrics.tool_values_doubtful.inc(choice.text.doubtful_values)
        if streams.complete:
            gateway.metrics.tool_parse_errors.inc(choice.text.unfinished_tool_calls)
    cached = sum(choice.state.num_cached_tokens for choice in streams.choices)
    if error is not None:
        record.end(outcome_of_error(error.kind), cached_tokens=cached)
    else:
        record.end("ok" if streams.complete else "disconnected", cached_tokens=cached)


class _StreamedAnswer(StreamingResponse):
    """A stream; however it ends, the generation is cancelled with it."""

    def __init__(
        self,
        gateway: Gateway,
        request: Request,
        record: RequestRecord,
        streams: ChoiceStreams,
        reply: ReplyWriter,
        first: list[Update] | None,
        before_end: Callable[[], Awaitable[None]],
    ):
        super().__init__(
            self._events(first),
            media_type=request.state.dialect.stream_type,
            headers=STREAM_HEADERS,
        )
        self._gateway = gateway
        self._request_id: str = request.state.request_id
        self._record = record
        self._streams = streams
        self._reply = reply
        self._before_end = before_end
        self._error: RequestError | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await end_answer(self._gateway, self._record, self._streams, self._error)

    async def _events(self, first: list[Update] | None) -> AsyncIterator[bytes]:
        keepalive_s = self._gateway.limits.keepalive_s
        try:
            batch = first
            if batch is None:  # the headers are out; the first comment is not due yet
                batch = await self._streams.next_batch(keepalive_s)
            while batch != []:
                if batch is None:
                    self._record.keepalive()
                    yield self._reply.keepalive()
                elif data := b"".join([self._reply.chunks(update) for update in batch]):
                    yield data
                batch = await self._streams.next_batch(keepalive_s)
            await self._before_end()
            yield self._reply.closing()
        except RequestError as error:
            yield self._failed(error)
        # The headers are out: logged with its traceback, and sent as the stream's last event.
        except Exception:
            log.exception("request %s failed after its headers were sent", self._request_id)
            yield self._failed(internal())

    def _failed(self, error: RequestError) -> bytes:
        """Note the error; its events."""
        self._error = error
        return self._reply.failed(error, self._request_id)
