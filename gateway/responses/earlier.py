"""What was said before a request that continues an answer or a conversation?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from gateway.errors import Kind as ErrorKind
from gateway.errors import RequestError, bad_field, not_ready, unsupported
from gateway.http.context import Gateway
from gateway.http.requests import gateway_of, off_loop
from gateway.responses.fields import InputTokensRequest
from gateway.store.response_store import (
    ChainTooLong,
    ResponseStore,
    Status,
    StoreError,
    UnknownEntry,
)
from moe_model.chat.lossless_json import loads


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """The items before a request's own."""

    items: Sequence[Any] = ()
    place: str = ""
    """The field that names them."""
    size_bytes: int = 0
    parent_id: str | None = None
    conversation_id: str | None = None


NOTHING = Earlier()


def required_store(gateway: Gateway, field: str) -> ResponseStore:
    """Raises RequestError where nothing is kept."""
    if gateway.store is None:
        raise unsupported(field, "this server keeps nothing (--response-store none)")
    return gateway.store


def unreachable(error: StoreError) -> RequestError:
    """For a request that needs the store."""
    return not_ready(f"the store of responses is {error.reason}", 1.0)


def not_found(what: str, id: str, field: str | None = None) -> RequestError:
    """In a field, it is the request that is wrong."""
    message = f"{what} with id {id[:100]!a} not found"
    if field is None:
        return RequestError(ErrorKind.NOT_FOUND, message, reason="not_found")
    return bad_field(field, message, f"{field.removesuffix('_id')}_not_found")


async def read_earlier(request: Request, tenant: str, fields: InputTokensRequest) -> Earlier:
    """Raises RequestError naming the field."""
    parent_id, conversation_id = fields.previous_response_id, _conversation_id(fields.conversation)
    if parent_id is None and conversation_id is None:
        return NOTHING
    if parent_id is not None and conversation_id is not None:
        raise bad_field("conversation", "goes without previous_response_id")
    field = "conversation" if parent_id is None else "previous_response_id"
    store = required_store(gateway_of(request), field)
    try:
        if parent_id is not None:
            parts = await _before(store, tenant, parent_id)
        else:
            found = await store.items(tenant, conversation_id or "")
            parts = [b"[" + b",".join(item.body for item in found) + b"]"]
    except UnknownEntry as error:
        what = "Conversation" if parent_id is None else "Previous response"
        raise not_found(what, error.id, field) from None
    except ChainTooLong as error:
        raise bad_field(field, str(error), "too_long") from None
    except StoreError as error:
        raise unreachable(error) from None
    size_bytes = sum(map(len, parts))
    return Earlier(
        items=await off_loop(request, size_bytes, lambda: _items(parts)),
        place=field,
        size_bytes=size_bytes,
        parent_id=parent_id,
        conversation_id=conversation_id,
    )


async def _before(store: ResponseStore, tenant: str, id: str) -> list[bytes]:
    """Lists of items, oldest first; the first answer's input, its output, the second's input..."""
    entries = await store.chain(tenant, id)
    if entries[-1].status is not Status.ENDED:
        raise bad_field("previous_response_id", "this response has not ended")
    return [part for entry in entries for part in (entry.input, entry.output)]


def _items(parts: Sequence[bytes]) -> list[Any]:
    return [item for part in parts for item in loads(part.decode())]


def _conversation_id(given: Any) -> str | None:
    id = given.get("id") if isinstance(given, dict) else given
    if (id is not None and not isinstance(id, str)) or (given is not None and id is None):
        raise bad_field("conversation", "must be an id or {'id': ...}", "invalid_type")
    return id
