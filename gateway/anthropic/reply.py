"""How do updates become the content blocks of a message, streamed or whole?

Blocks come one after the other, each with its index. A call that a limit cut has no end and is no
JSON: streamed it stays open, whole it is left out, so that no client runs a part of it.
"""

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from gateway.anthropic.errors import error_event
from gateway.errors import RequestError
from gateway.generate.choice_streams import Choice, Finish, Update
from gateway.http.dialect import KEEPALIVE
from moe_model.chat.events import (
    ContentDelta,
    ParserEvent,
    ReasoningDelta,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallStart,
)

CALL_PREFIX = "toolu_"
PING = b'event: ping\ndata: {"type": "ping"}\n\n'

_STOP_REASONS = {
    Finish.STOP: "end_turn",
    Finish.LENGTH: "max_tokens",
    Finish.CALLS: "tool_use",
}


@dataclass(kw_only=True)
class _Block:
    """One content block, growing."""

    kind: str
    head: dict[str, Any] = field(default_factory=dict)
    """What it has from the start."""
    parts: list[str] = field(default_factory=list)
    is_whole: bool = True


_EMPTY: dict[str, dict[str, Any]] = {
    "text": {"text": ""},
    "thinking": {"thinking": "", "signature": ""},
    "tool_use": {"input": {}},
}
_DELTAS = {
    "text": ("text_delta", "text"),
    "thinking": ("thinking_delta", "thinking"),
    "tool_use": ("input_json_delta", "partial_json"),
}
"""Kind of a block -> type of its deltas, and where their text is."""


class MessageReply:
    """One choice's answer: a message."""

    def __init__(
        self,
        choice: Choice,
        *,
        model: str,
        asked_tokens: int,
        show_thinking: bool,
        thinking_text: bool,
        sign: Callable[[str], str],
    ):
        """
        Args:
            asked_tokens: the request's max_tokens; the context may have had room for fewer.
            show_thinking: the answer has thinking blocks.
            thinking_text: these have the thinking in them, else only a signature.
        """
        self._choice = choice
        self._model = model
        self._asked_tokens = asked_tokens
        self._show_thinking = show_thinking
        self._thinking_text = thinking_text
        self._sign = sign
        self._id = "msg_" + secrets.token_hex(12)
        self._blocks: list[_Block] = []
        self._is_open = False
        self._started = False
        self._blanks = ""
        """White space that is text only if more text follows."""
        self._stop_reason: str | None = None
        self._stop_sequence: str | None = None

    def keepalive(self) -> bytes:
        """A ping; not before the message has started, which some clients take for an error."""
        return PING if self._started else KEEPALIVE

    def chunks(self, update: Update) -> bytes:
        events = [] if self._started else [self._start()]
        self._started = True
        events += self._read(update)
        return b"".join(map(_sse, events))

    def closing(self) -> bytes:
        delta = {"stop_reason": self._stop_reason, "stop_sequence": self._stop_sequence}
        return _sse({"type": "message_delta", "delta": delta, "usage": self._usage()}) + _sse(
            {"type": "message_stop"}
        )

    def failed(self, error: RequestError, request_id: str) -> bytes:
        return error_event(error, request_id)

    def collect(self, update: Update) -> None:
        self._read(update)

    def whole(self) -> bytes:
        content = [self._content(block) for block in self._blocks if block.is_whole]
        return orjson.dumps(
            {
                **self._head(),
                "content": content,
                "stop_reason": self._stop_reason,
                "stop_sequence": self._stop_sequence,
                "usage": self._usage(),
            }
        )

    def _head(self) -> dict[str, Any]:
        return {"id": self._id, "type": "message", "role": "assistant", "model": self._model}

    def _start(self) -> dict[str, Any]:
        message = {
            **self._head(),
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": self._usage(),
        }
        return {"type": "message_start", "message": message}

    def _usage(self) -> dict[str, Any]:
        """Prompt tokens that were cached are counted by themselves; clients add up all three.

        What was not cached is plain input: clients charge more for what goes into a cache, and here
        that costs nothing.
        """
        state = self._choice.state
        return {
            "input_tokens": state.num_prompt_tokens - state.num_cached_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": state.num_cached_tokens,
            "output_tokens": state.num_generated_tokens,
            "service_tier": "standard",
        }

    def _read(self, update: Update) -> list[dict[str, Any]]:
        """The events of one update; what they say is kept for `whole`."""
        events: list[dict[str, Any]] = []
        call_ids = iter(update.call_ids)
        for event in update.events:
            events += self._read_event(event, call_ids)
        if update.finish is not None:
            events += self._end_block()
            self._stop_reason = _STOP_REASONS[update.finish]
            if update.finish is Finish.LENGTH:
                generated = self._choice.state.num_generated_tokens
                limit = self._choice.state.request.sampling.max_tokens
                if generated >= limit and limit < self._asked_tokens:
                    self._stop_reason = "model_context_window_exceeded"
            elif isinstance(update.stopped_by, str):
                self._stop_reason, self._stop_sequence = "stop_sequence", update.stopped_by
        return events

    def _read_event(self, event: ParserEvent, call_ids: Iterator[str]) -> list[dict[str, Any]]:
        if isinstance(event, ContentDelta):
            text = self._blanks + event.text
            self._blanks = ""
            if not self._in("text") and not text.strip():
                self._blanks = text
                return []
            return self._add("text", text)
        self._blanks = ""
        if isinstance(event, ReasoningDelta):
            return self._add("thinking", event.text) if self._show_thinking else []
        if isinstance(event, ToolCallStart):
            head = {"id": next(call_ids), "name": event.name}
            return self._begin(_Block(kind="tool_use", head=head))
        if isinstance(event, ToolCallArguments):
            return self._add("tool_use", event.fragment)
        if isinstance(event, ToolCallEnd):
            self._blocks[-1].is_whole = event.complete
            return self._end_block()
        return []

    def _in(self, kind: str) -> bool:
        return self._is_open and self._blocks[-1].kind == kind

    def _add(self, kind: str, text: str) -> list[dict[str, Any]]:
        """More of the open block, or of a new one."""
        events = [] if self._in(kind) else self._begin(_Block(kind=kind))
        self._blocks[-1].parts.append(text)
        if kind == "thinking" and not self._thinking_text:
            return events
        delta_type, key = _DELTAS[kind]
        return [*events, self._delta({"type": delta_type, key: text})]

    def _begin(self, block: _Block) -> list[dict[str, Any]]:
        events = self._end_block()
        self._blocks.append(block)
        self._is_open = True
        content = {"type": block.kind, **block.head, **_EMPTY[block.kind]}
        index = len(self._blocks) - 1
        return [
            *events,
            {"type": "content_block_start", "index": index, "content_block": content},
        ]

    def _end_block(self) -> list[dict[str, Any]]:
        if not self._is_open:
            return []
        self._is_open = False
        block, events = self._blocks[-1], []
        if block.kind == "thinking":
            signature = self._sign("".join(block.parts) if self._thinking_text else "")
            events = [self._delta({"type": "signature_delta", "signature": signature})]
        return [*events, {"type": "content_block_stop", "index": len(self._blocks) - 1}]

    def _delta(self, delta: dict[str, Any]) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": len(self._blocks) - 1, "delta": delta}

    def _content(self, block: _Block) -> dict[str, Any]:
        """The block as a whole answer has it."""
        text = "".join(block.parts)
        if block.kind == "tool_use":
            as_streamed = orjson.Fragment(text or "{}")  # parsed, a long integer would be rounded
            return {"type": "tool_use", **block.head, "input": as_streamed}
        if block.kind == "thinking":
            shown = text if self._thinking_text else ""
            return {"type": "thinking", "thinking": shown, "signature": self._sign(shown)}
        return {"type": "text", "text": text}


def _sse(event: dict[str, Any]) -> bytes:
    return b"event: " + event["type"].encode() + b"\ndata: " + orjson.dumps(event) + b"\n\n"
