"""/v1/conversations: lists of items that requests can name instead of sending them."""

import time
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict
from starlette.requests import Request
from starlette.responses import Response

from gateway.errors import bad_field
from gateway.http.auth import tenant_of
from gateway.http.requests import counted, gateway_of, json_response, read_object
from gateway.http.typed_body import parse_model
from gateway.responses.earlier import not_found, required_store, unreachable
from gateway.responses.envelope import check_metadata
from gateway.responses.fields import ITEMS, METADATA
from gateway.responses.keeping import as_items, dump, stored_items
from gateway.responses.paging import page
from gateway.responses.references import resolved
from gateway.responses.stored import found
from gateway.store.response_store import (
    ChainTooLong,
    Entry,
    Item,
    Kind,
    ResponseStore,
    StoreError,
    new_id,
)
from moe_model.chat.lossless_json import loads

_MOST_ITEMS = 20
"""Added by one request."""
_FEW_ITEMS: JsonDict = {**ITEMS, "maxItems": _MOST_ITEMS}


class ConversationRequest(BaseModel):
    """POST /v1/conversations."""

    model_config = ConfigDict(strict=True)

    items: list[Any] | None = Field(None, description="to begin with", json_schema_extra=_FEW_ITEMS)
    metadata: dict[str, Any] | None = Field(None, json_schema_extra=METADATA)


class MetadataRequest(BaseModel):
    """POST /v1/conversations/{conversation_id}."""

    model_config = ConfigDict(strict=True)

    metadata: dict[str, Any] = Field(
        description="in place of the conversation's", json_schema_extra=METADATA
    )


class ItemsRequest(BaseModel):
    """POST /v1/conversations/{conversation_id}/items."""

    model_config = ConfigDict(strict=True)

    items: list[Any] = Field(json_schema_extra=_FEW_ITEMS)


async def create_conversation(request: Request) -> Response:
    """A conversation, empty or with its first items."""
    with counted(request):
        gateway = gateway_of(request)
        store = required_store(gateway, "conversations")
        fields = parse_model(
            ConversationRequest, await read_object(request, gateway.limits, history="items")
        )
        check_metadata(fields.metadata)
        tenant = tenant_of(request.state.key_id, "")
        created_s = int(time.time())
        id = new_id("conv_")
        document = {
            "id": id,
            "object": "conversation",
            "created_at": created_s,
            "metadata": fields.metadata or {},
        }
        entry = Entry(
            id=id,
            kind=Kind.CONVERSATION,
            created_s=created_s,
            document=orjson.dumps(document),
        )
        try:
            await store.put(
                tenant, entry, stored_items(await _given(request, tenant, fields.items or []))
            )
        except StoreError as error:
            raise unreachable(error) from None
        return json_response(document)


async def get_conversation(request: Request) -> Response:
    """A conversation, without its items."""
    with counted(request), _conversation(request) as (store, tenant, id):
        entry = await store.get(tenant, Kind.CONVERSATION, id)
        return Response(entry.document, media_type="application/json")


async def update_conversation(request: Request) -> Response:
    """Give a conversation other metadata."""
    with counted(request), _conversation(request) as (store, tenant, id):
        body = await read_object(request, gateway_of(request).limits)
        fields = parse_model(MetadataRequest, body)
        check_metadata(fields.metadata)
        entry = await store.get(tenant, Kind.CONVERSATION, id)
        document = {**orjson.loads(entry.document), "metadata": fields.metadata}
        await store.replace(tenant, Kind.CONVERSATION, id, orjson.dumps(document))
        return json_response(document)


async def delete_conversation(request: Request) -> Response:
    """Forget a conversation and its items; its responses are kept by themselves."""
    with counted(request), _conversation(request) as (store, tenant, id):
        await store.delete(tenant, Kind.CONVERSATION, id)
        return json_response({"id": id, "object": "conversation.deleted", "deleted": True})


async def add_items(request: Request) -> Response:
    """Put items at the end of a conversation."""
    with counted(request), _conversation(request) as (store, tenant, id):
        body = await read_object(request, gateway_of(request).limits, history="items")
        items = await _given(request, tenant, parse_model(ItemsRequest, body).items)
        await store.add_items(tenant, id, stored_items(items))
        shown = {
            "object": "list",
            "data": items,
            "first_id": items[0]["id"] if items else None,
            "last_id": items[-1]["id"] if items else None,
            "has_more": False,
        }
        return Response(dump(shown), media_type="application/json")


async def list_items(request: Request) -> Response:
    """The items of a conversation."""
    with counted(request), _conversation(request) as (store, tenant, id):
        items = [loads(item.body.decode()) for item in await _items(store, tenant, id)]
        return Response(dump(page(request, items)), media_type="application/json")


async def get_item(request: Request) -> Response:
    """One item of a conversation."""
    with counted(request), _conversation(request) as (store, tenant, id):
        item_id = str(request.path_params["item_id"])
        for item in await _items(store, tenant, id):
            if item.id == item_id:
                return Response(item.body, media_type="application/json")
        raise not_found("Item", item_id)


async def delete_item(request: Request) -> Response:
    """Take an item out of a conversation."""
    with counted(request), _conversation(request) as (store, tenant, id):
        await store.delete_item(tenant, id, str(request.path_params["item_id"]))
        entry = await store.get(tenant, Kind.CONVERSATION, id)
        return Response(entry.document, media_type="application/json")


def _conversation(request: Request) -> Any:
    return found(request, "Conversation", "conversation_id")


async def _items(store: ResponseStore, tenant: str, id: str) -> list[Item]:
    try:
        return await store.items(tenant, id)
    except ChainTooLong as error:
        raise bad_field("conversation_id", str(error), "too_long") from None


async def _given(request: Request, tenant: str, items: list[Any]) -> list[dict[str, Any]]:
    if len(items) > _MOST_ITEMS:
        raise bad_field("items", f"at most {_MOST_ITEMS} at once, got {len(items)}")
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            raise bad_field(f"items[{index}]", "must be an object", "invalid_type")
    return as_items(await resolved(request, tenant, items, "items"))
