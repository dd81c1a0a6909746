"""How do updates become the items of a response, streamed or whole?

Every event has the next sequence number. Items come one after the other. A call that a limit cut
has no end: streamed it stays open, and the response has it not, so that no client runs a part.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson

from gateway.errors import Kind, RequestError
from gateway.generate.choice_streams import Choice, Finish, Update
from gateway.http.dialect import KEEPALIVE
from gateway.responses.items import CallItem, CustomCallItem, Event, Item, TextItem, ThinkingItem
from gateway.responses.tools import Offered
from gateway.shapes.logprobs import token_logprobs
from gateway.text.model_files import ModelFiles
from moe_model.chat.events import (
    ContentDelta,
    ParserEvent,
    ReasoningDelta,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallStart,
)

_CODES = {Kind.OVERLOADED: "rate_limit_exceeded", Kind.INVALID_REQUEST: "invalid_prompt"}
"""All others are `server_error`."""


class ResponseReply:
    """One choice's answer: a response."""

    def __init__(
        self,
        choice: Choice,
        model: ModelFiles,
        *,
        head: Mapping[str, Any],
        tools: Mapping[str, Offered],
        with_logprobs: bool = False,
        seal: Callable[[str], str] | None = None,
    ):
        """
        Args:
            head: what the response says from the beginning, its id and what was asked.
            tools: by the model's names.
            seal: makes `encrypted_content` of thinking; None: it was not asked for.
        """
        self._choice = choice
        self._model = model
        self._head = head
        self._tools = tools
        self._with_logprobs = with_logprobs
        self._seal = seal
        self._items: list[Item] = []
        self._open: Item | None = None
        """The last of them, while it grows."""
        self._started = False
        self._blanks = ""
        """White space that is text only if more text follows."""
        self._logprobs: list[dict[str, Any]] = []
        """Of tokens whose text has not come yet."""
        self._finish: Finish | None = None
        self._completed_at: int | None = None
        self._num_events = 0

    def keepalive(self) -> bytes:
        return KEEPALIVE

    def opening(self) -> bytes:
        """The first events, for a client that shall have the id before the model says anything."""
        self._started = True
        response = {**self._head, "status": "in_progress", "output": [], "usage": None}
        kinds = ("response.created", "response.in_progress")
        return b"".join([self._sse({"type": kind, "response": response}) for kind in kinds])

    def chunks(self, update: Update) -> bytes:
        opening = b"" if self._started else self.opening()
        return opening + b"".join([self._sse(event) for event in self._read(update)])

    def closing(self) -> bytes:
        response = self.response()
        return self._sse({"type": f"response.{response['status']}", "response": response})

    def failed(self, error: RequestError, request_id: str) -> bytes:
        response = self.failed_response(error, request_id)
        told = response["error"]
        return (
            (b"" if self._started else self.opening())
            + self._sse({"type": "error", **told, "param": error.field})
            + self._sse({"type": "response.failed", "response": response})
        )

    def failed_response(self, error: RequestError, request_id: str) -> dict[str, Any]:
        """The response that ends with this error."""
        if self._open is not None:
            self._open.status = "incomplete"
            self._open.is_whole = not isinstance(self._open, CallItem)
        code = error.reason if error.reason == "context_length_exceeded" else None
        code = code or _CODES.get(error.kind, "server_error")
        told = {"code": code, "message": f"{error.message} (request {request_id})"}
        response = {**self.response(), "status": "failed", "error": told, "completed_at": None}
        response["incomplete_details"] = None
        return response

    def note_not_kept(self, why: str) -> None:
        """The answer is given, and nothing can refer to it."""
        warnings = [*self._head["warnings"], f"store: this response is not kept: {why}"]
        self._head = {**self._head, "store": False, "warnings": warnings}

    def collect(self, update: Update) -> None:
        self._read(update)

    def whole(self) -> bytes:
        return orjson.dumps(self.response())

    def response(self) -> dict[str, Any]:
        """The response as it stands."""
        cut = self._finish is Finish.LENGTH
        status = "incomplete" if cut else "completed" if self._finish else "in_progress"
        return {
            **self._head,
            "status": status,
            "completed_at": self._completed_at if status == "completed" else None,
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "output": [item.shown() for item in self._items if item.is_whole],
            "usage": self._usage() if self._finish else None,
        }

    def _usage(self) -> dict[str, Any]:
        state = self._choice.state
        prompt, generated = state.num_prompt_tokens, state.num_generated_tokens
        return {
            "input_tokens": prompt,
            "input_tokens_details": {
                "cached_tokens": state.num_cached_tokens,
                "cache_write_tokens": 0,
            },
            "output_tokens": generated,
            "output_tokens_details": {"reasoning_tokens": self._choice.text.reasoning_tokens},
            "total_tokens": prompt + generated,
        }

    def _read(self, update: Update) -> list[Event]:
        """The events of one update; what they say is kept for the response."""
        events: list[Event] = []
        if self._with_logprobs:
            self._add_logprobs(update)
        call_ids = iter(update.call_ids)
        for event in update.events:
            events += self._read_event(event, call_ids)
        if update.finish is not None:
            self._finish = update.finish
            self._completed_at = int(time.time())
            events += self._end_item()
        return events

    def _read_event(self, event: ParserEvent, call_ids: Iterator[str]) -> list[Event]:
        if isinstance(event, ContentDelta):
            return self._add_text(event.text)
        self._blanks = ""
        if isinstance(event, ReasoningDelta):
            if isinstance(self._open, ThinkingItem):
                return self._open.grow(event.text)
            thinking = ThinkingItem(self._seal)
            return self._begin(thinking) + thinking.grow(event.text)
        if isinstance(event, ToolCallStart):
            self._logprobs = []
            return self._begin(self._call(event.name, next(call_ids)))
        if isinstance(event, ToolCallArguments):
            return self._items[-1].grow(event.fragment)
        if isinstance(event, ToolCallEnd):
            self._items[-1].is_whole = event.complete
            return self._end_item()
        return []

    def _call(self, name: str, call_id: str) -> CallItem:
        tool = self._tools.get(name)
        if tool is None:  # the model made it up: the client tells it so
            return CallItem(call_id, {"name": name})
        names = {"name": tool.name}
        if tool.namespace is not None:
            names["namespace"] = tool.namespace
        return (CustomCallItem if tool.is_custom else CallItem)(call_id, names)

    def _add_text(self, text: str) -> list[Event]:
        if isinstance(self._open, TextItem):
            return self._open.grow(text, self._take_logprobs())
        text, self._blanks = self._blanks + text, ""
        if not text.strip():
            self._blanks = text
            return []
        item = TextItem()
        return self._begin(item) + item.grow(text, self._take_logprobs())

    def _begin(self, item: Item) -> list[Event]:
        ended = self._end_item()
        item.output_index = len(self._items)
        self._items.append(item)
        self._open = item
        added = {
            "type": "response.output_item.added",
            "output_index": item.output_index,
            "item": item.shown(),
        }
        return [*ended, added, *item.opening()]

    def _end_item(self) -> list[Event]:
        item, self._open = self._open, None
        if item is None or not item.is_whole:
            return []
        item.status = "incomplete" if self._finish is Finish.LENGTH else "completed"
        ending = item.ending()
        done = {
            "type": "response.output_item.done",
            "output_index": item.output_index,
            "item": item.shown(),
        }
        return [*ending, done]

    def _add_logprobs(self, update: Update) -> None:
        """Of the text alone: thinking and calls have none in this API."""
        if isinstance(self._open, CallItem):
            return
        said = [i for i, thinks in enumerate(update.thinks) if not thinks]
        self._logprobs += token_logprobs(
            self._model, [update.token_ids[i] for i in said], [update.logprobs[i] for i in said]
        )

    def _take_logprobs(self) -> list[dict[str, Any]]:
        logprobs, self._logprobs = self._logprobs, []
        return logprobs

    def _sse(self, event: Event) -> bytes:
        event["sequence_number"] = self._num_events
        self._num_events += 1
        return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), orjson.dumps(event))
