"""GET, DELETE and cancel of responses that are kept, and their input items."""

import contextlib
from collections.abc import Iterator
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from gateway.errors import bad_field
from gateway.http.auth import tenant_of
from gateway.http.dialect import Query
from gateway.http.requests import counted, gateway_of, json_response
from gateway.responses.background import followed
from gateway.responses.earlier import not_found, unreachable
from gateway.responses.keeping import document_of, dump
from gateway.responses.paging import page
from gateway.store.response_store import (
    Entry,
    Kind,
    ResponseStore,
    Status,
    StoreError,
    UnknownEntry,
)
from moe_model.chat.lossless_json import loads

_ABANDONED = {
    "code": "server_error",
    "message": "the server that worked on this response stopped before its end",
}


EVENTS = (
    Query(
        name="stream",
        schema={"type": "boolean"},
        description="events of a response that is made in the background and streamed",
    ),
    Query(
        name="starting_after",
        schema={"type": "integer", "minimum": 0, "maximum": 10**9 - 1},
        description="with stream: the number of the last event that is known",
    ),
)
"""Of `get_response`."""


async def get_response(request: Request) -> Response:
    """A response that was kept, or the stream of one that is made in the background."""
    first_event = _first_event(request)
    with counted(request), found(request, "Response", "response_id") as (store, tenant, id):
        entry = await store.get(tenant, Kind.RESPONSE, id)
        if first_event is None:
            return _shown(entry)
        gateway = gateway_of(request)
        events = gateway.background.logs.get(id)
        if events is None:
            raise bad_field(
                "stream",
                "this server has no events of the response: only of one that was asked for with "
                "background and stream here, and for a while; ask for it without stream",
            )
        return followed(gateway, events, first_event)


def _first_event(request: Request) -> int | None:
    """From which event on it is to be streamed; None: not at all. Raises RequestError."""
    asked = request.query_params
    stream, after = asked.get("stream", "false"), asked.get("starting_after")
    if stream not in ("true", "false"):
        raise bad_field("stream", "must be true or false", "invalid_type")
    if after is not None and not (after.isascii() and after.isdigit() and len(after) < 10):
        raise bad_field("starting_after", "must be the number of an event")
    if stream == "false":
        return None
    return 0 if after is None else int(after) + 1


async def delete_response(request: Request) -> Response:
    """Forget a response; those that continue it cannot be continued any more."""
    with counted(request), found(request, "Response", "response_id") as (store, tenant, id):
        await store.delete(tenant, Kind.RESPONSE, id)
    background = gateway_of(request).background
    background.cancel(id)
    background.logs.forget(id)
    return json_response({"id": id, "object": "response", "deleted": True})


async def cancel_response(request: Request) -> Response:
    """End a response that is made in the background; one that has ended stays as it is."""
    with counted(request), found(request, "Response", "response_id") as (store, tenant, id):
        entry = await store.get(tenant, Kind.RESPONSE, id)
        document = orjson.loads(entry.document)
        if not document["background"]:
            raise bad_field("response_id", "only responses with background can be cancelled")
        if entry.status is Status.RUNNING:
            cancelled = {**document, "status": "cancelled"}
            await store.end(tenant, id, document=document_of(cancelled), output=b"[]")
            gateway_of(request).background.cancel(id)
            entry = await store.get(tenant, Kind.RESPONSE, id)
        return _shown(entry)


async def list_input_items(request: Request) -> Response:
    """What a kept response was asked, without what it continued."""
    with counted(request), found(request, "Response", "response_id") as (store, tenant, id):
        entry = await store.get(tenant, Kind.RESPONSE, id)
        shown = page(request, loads(entry.input.decode()))
        return Response(dump(shown), media_type="application/json")


@contextlib.contextmanager
def found(request: Request, what: str, parameter: str) -> Iterator[tuple[ResponseStore, str, str]]:
    """(store, tenant, id in the path); the store's errors become the request's."""
    gateway, id = gateway_of(request), str(request.path_params[parameter])
    if gateway.store is None:
        raise not_found(what, id)
    try:
        yield gateway.store, tenant_of(request.state.key_id, ""), id
    except UnknownEntry as error:
        raise not_found(what if error.id == id else "Item", error.id) from None
    except StoreError as error:
        raise unreachable(error) from None


def _shown(entry: Entry) -> Response:
    document: dict[str, Any] = orjson.loads(entry.document)
    document["output"] = orjson.Fragment(entry.output)
    if entry.status is Status.ABANDONED:
        document.update(status="failed", error=_ABANDONED)
    return json_response(document)
