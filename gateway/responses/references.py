"""Which items does an input only name, and what do they say?

An `item_reference` stands for an item of an answer that was kept, or of a conversation. It is put
in the reference's place before anything reads the input, so that what is kept of the new answer
holds it too.
"""

from typing import Any

from starlette.requests import Request

from gateway.errors import Kind, RequestError, bad_field
from gateway.http.requests import gateway_of, off_loop
from gateway.responses.earlier import unreachable
from gateway.store.response_store import ChainTooLong, StoreError
from moe_model.chat.lossless_json import loads

REFERENCE = "item_reference"


async def resolved(request: Request, tenant: str, given: Any, field: str) -> Any:
    """`given` with the items themselves. Raises RequestError naming the reference."""
    if not isinstance(given, list):
        return given
    places = {i: item["id"] for i, item in enumerate(given) if _is_reference(item)}
    if not places:
        return given
    known = await _known(request, tenant, field, set(places.values()))
    for index, id in places.items():
        if id not in known:
            raise RequestError(
                Kind.NOT_FOUND,
                f"{field}[{index}].id: item with id {id[:100]!a} not found; items are kept where "
                "store is not false, otherwise send the item itself",
                field=f"{field}[{index}].id",
                reason="item_not_found",
            )
    return [known[places[i]] if i in places else item for i, item in enumerate(given)]


def _is_reference(item: Any) -> bool:
    """Its type may be left out."""
    if not isinstance(item, dict) or not isinstance(item.get("id"), str):
        return False
    kind = item.get("type")
    return kind == REFERENCE or (kind is None and "role" not in item)


async def _known(
    request: Request, tenant: str, field: str, ids: set[str]
) -> dict[str, dict[str, Any]]:
    store = gateway_of(request).store
    if store is None:
        return {}
    try:
        lists = await store.lists_with(tenant, ids)
    except ChainTooLong as error:
        raise bad_field(field, str(error), "too_long") from None
    except StoreError as error:
        raise unreachable(error) from None
    items = await off_loop(
        request, sum(map(len, lists)), lambda: [i for one in lists for i in loads(one.decode())]
    )
    return {item["id"]: item for item in items if item.get("id") in ids}
