"""What is kept of an answer, and what does it say when it could not be kept?"""

import json
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import orjson

from gateway.errors import RequestError
from gateway.responses.earlier import Earlier
from gateway.responses.reply import ResponseReply
from gateway.store.response_store import (
    Entry,
    Item,
    Kind,
    ResponseStore,
    Status,
    StoreError,
    UnknownEntry,
    new_id,
)

OffLoop = Callable[[Callable[[], Any]], Awaitable[Any]]

_PREFIXES = {
    "message": "msg_",
    "reasoning": "rs_",
    "function_call": "fc_",
    "function_call_output": "fco_",
}
_SANE_ID = re.compile(r"[A-Za-z0-9_\-]{1,128}")


def as_items(given: Any) -> list[dict[str, Any]]:
    """A request's input as items that each have an id."""
    if given is None:
        return []
    if isinstance(given, str):
        content = [{"type": "input_text", "text": given}]
        given = [{"type": "message", "role": "user", "content": content}]
    return [_with_id(item) for item in given]


def _with_id(item: dict[str, Any]) -> dict[str, Any]:
    kind = item.get("type") or "message"
    id = item.get("id")
    if not isinstance(id, str) or not _SANE_ID.fullmatch(id):
        id = new_id(_PREFIXES.get(kind, "item_") if isinstance(kind, str) else "item_")
    known = {"status": "completed", **item, "type": kind, "id": id}
    content = item.get("content")
    if kind == "message" and isinstance(content, str):  # in the one form that answers have
        said = "output_text" if item.get("role") == "assistant" else "input_text"
        known["content"] = [{"type": said, "text": content}]
    return known


def dump(value: Any) -> bytes:
    """Of what a client sent: it may have integers of any length and lone surrogates."""
    return json.dumps(value, separators=(",", ":")).encode()


def stored_items(items: Sequence[dict[str, Any]]) -> list[Item]:
    """For a conversation."""
    return [Item(id=item["id"], body=dump(item)) for item in items]


class Keeper:
    """Keeps one answer: at its end, or from its beginning if it is made in the background."""

    def __init__(
        self,
        store: ResponseStore,
        tenant: str,
        reply: ResponseReply,
        given: Any,
        earlier: Earlier,
        off_loop: OffLoop,
    ):
        """
        Args:
            given: the request's input.
            off_loop: does work of the request's size where it holds up nobody.
        """
        self._store = store
        self._tenant = tenant
        self._reply = reply
        self._input = as_items(given)
        self._earlier = earlier
        self._off_loop = off_loop

    async def keep(self) -> None:
        """Before the end is told: a client may refer to the answer at once."""
        response = self._reply.response()
        try:
            entry = await self._off_loop(lambda: self._entry(response))
            items = await self._off_loop(lambda: self._turn(response))
            answered = _ids(response["output"])
            await self._store.put(self._tenant, entry, items, answered=answered)
        except RequestError as error:
            self._reply.note_not_kept(error.message)
        except StoreError as error:
            self._reply.note_not_kept(f"the store is {error.reason}")
        except UnknownEntry:
            self._reply.note_not_kept("what it continues was deleted meanwhile")

    async def begin(self) -> None:
        """Keep it as one in progress. Raises RequestError, StoreError and UnknownEntry."""
        response = self._reply.response()
        entry = await self._off_loop(lambda: self._entry(response, Status.RUNNING))
        await self._store.put(self._tenant, entry)

    async def end(self, response: dict[str, Any]) -> bool:
        """False: it was cancelled or deleted meanwhile.

        Raises RequestError, StoreError and UnknownEntry.
        """
        items = await self._off_loop(lambda: self._turn(response))
        return await self._store.end(
            self._tenant,
            response["id"],
            document=document_of(response),
            output=orjson.dumps(response["output"]),
            items=items,
            answered=_ids(response["output"]),
        )

    def _entry(self, response: dict[str, Any], status: Status = Status.ENDED) -> Entry:
        return Entry(
            id=response["id"],
            kind=Kind.RESPONSE,
            created_s=response["created_at"],
            document=document_of(response),
            input=dump(self._input),
            output=orjson.dumps(response["output"]),
            parent_id=self._earlier.parent_id,
            conversation_id=self._earlier.conversation_id,
            status=status,
        )

    def _turn(self, response: dict[str, Any]) -> list[Item]:
        """What goes to the end of its conversation."""
        if self._earlier.conversation_id is None:
            return []
        return stored_items([*self._input, *response["output"]])


def _ids(items: Sequence[dict[str, Any]]) -> list[str]:
    return [item["id"] for item in items]


def document_of(response: dict[str, Any]) -> bytes:
    """All but the output, which is kept by itself."""
    return orjson.dumps({**response, "output": []})
