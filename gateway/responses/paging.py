"""How is a list of items shown, a page at a time?"""

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request

from gateway.errors import bad_field
from gateway.http.dialect import Query

_MOST = 100
_USUAL = 20
_ORDERS = ("asc", "desc")

PAGE = (
    Query(
        name="limit",
        schema={"type": "integer", "minimum": 1, "maximum": _MOST, "default": _USUAL},
        description="items on the page",
    ),
    Query(
        name="order",
        schema={"enum": list(_ORDERS), "default": "desc"},
        description="the oldest first, or the newest",
    ),
    Query(
        name="after",
        schema={"type": "string"},
        description="the id of the last item of the page before",
    ),
)


def page(request: Request, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The page that `limit`, `order` and `after` ask for. Raises RequestError naming the field.

    `items`: the oldest first.
    """
    asked = request.query_params
    text, order, after = (
        asked.get("limit", str(_USUAL)),
        asked.get("order", "desc"),
        asked.get("after"),
    )
    if not (text.isascii() and text.isdigit() and len(text) < 4 and 1 <= int(text) <= _MOST):
        raise bad_field("limit", f"must be 1 to {_MOST}")
    if order not in _ORDERS:
        raise bad_field("order", "must be asc or desc")
    ordered = list(items) if order == "asc" else list(items)[::-1]
    if after is not None:
        places = [index for index, item in enumerate(ordered) if item["id"] == after]
        if not places:
            raise bad_field("after", "no such item")
        ordered = ordered[places[0] + 1 :]
    shown = ordered[: int(text)]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": len(ordered) > len(shown),
    }
