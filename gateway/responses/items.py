"""What are the items of an answer, and which events make each of them grow?

Thinking, text, a function's call and a custom tool's call. The reply numbers their events.
"""

import json
import re
import secrets
from collections.abc import Callable, Sequence
from typing import Any

from gateway.responses.tools import CUSTOM_INPUT
from moe_model.text.unicode_text import repaired

Event = dict[str, Any]


class Item:
    """One item, growing."""

    prefix = ""

    def __init__(self) -> None:
        self.id = f"{self.prefix}_{secrets.token_hex(16)}"
        self.output_index = 0
        self._parts: list[str] = []
        self.status = "in_progress"
        self.is_whole = True
        """False: a limit cut it, and no client may take it for what it began to be."""

    @property
    def text(self) -> str:
        return "".join(self._parts)

    def shown(self) -> dict[str, Any]:
        """As it is now."""
        raise NotImplementedError

    def opening(self) -> list[Event]:
        return []

    def grow(self, text: str) -> list[Event]:
        raise NotImplementedError

    def ending(self) -> list[Event]:
        raise NotImplementedError

    def _event(self, kind: str, fields: Event) -> Event:
        return {
            "type": kind,
            "item_id": self.id,
            "output_index": self.output_index,
            **fields,
        }


class TextItem(Item):
    """What the model says."""

    prefix = "msg"

    def __init__(self) -> None:
        super().__init__()
        self.logprobs: list[dict[str, Any]] = []

    def shown(self) -> dict[str, Any]:
        content = [self._part()] if self._parts else []
        return {
            "id": self.id,
            "type": "message",
            "status": self.status,
            "role": "assistant",
            "content": content,
        }

    def opening(self) -> list[Event]:
        part = {"content_index": 0, "part": self._part()}
        return [self._event("response.content_part.added", part)]

    def grow(self, text: str, logprobs: Sequence[dict[str, Any]] = ()) -> list[Event]:
        self._parts.append(text)
        self.logprobs += logprobs
        return [
            {  # written out: this is done for every token
                "type": "response.output_text.delta",
                "item_id": self.id,
                "output_index": self.output_index,
                "content_index": 0,
                "delta": text,
                "logprobs": logprobs,
            }
        ]

    def ending(self) -> list[Event]:
        done = {"content_index": 0, "text": self.text, "logprobs": self.logprobs}
        return [
            self._event("response.output_text.done", done),
            self._event("response.content_part.done", {"content_index": 0, "part": self._part()}),
        ]

    def _part(self) -> dict[str, Any]:
        known = {"annotations": [], "logprobs": self.logprobs}
        return {"type": "output_text", "text": self.text, **known}


class ThinkingItem(Item):
    """What the model thinks. `seal`: makes its `encrypted_content`; None: it has none."""

    prefix = "rs"

    def __init__(self, seal: Callable[[str], str] | None) -> None:
        super().__init__()
        self._seal = seal
        self._sealed: str | None = None

    def shown(self) -> dict[str, Any]:
        content = [self._part()] if self._parts else []
        return {
            "id": self.id,
            "type": "reasoning",
            "status": self.status,
            "summary": [],
            "content": content,
            "encrypted_content": self._sealed,
        }

    def opening(self) -> list[Event]:
        part = {"content_index": 0, "part": self._part()}
        return [self._event("response.content_part.added", part)]

    def grow(self, text: str) -> list[Event]:
        self._parts.append(text)
        fields = {"content_index": 0, "delta": text}
        return [self._event("response.reasoning_text.delta", fields)]

    def ending(self) -> list[Event]:
        text = self.text
        if self._seal is not None:
            self._sealed = self._seal(text)
        return [
            self._event("response.reasoning_text.done", {"content_index": 0, "text": text}),
            self._event("response.content_part.done", {"content_index": 0, "part": self._part()}),
        ]

    def _part(self) -> dict[str, Any]:
        return {"type": "reasoning_text", "text": self.text}


class CallItem(Item):
    """A function's call. `names`: its name, and its namespace if it has one."""

    prefix = "fc"

    def __init__(self, call_id: str, names: dict[str, Any]) -> None:
        super().__init__()
        self._call_id = call_id
        self._names = names

    def shown(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": "function_call",
            "status": self.status,
            "call_id": self._call_id,
            **self._names,
            "arguments": self.text,
        }

    def grow(self, text: str) -> list[Event]:
        self._parts.append(text)
        return [self._event("response.function_call_arguments.delta", {"delta": text})]

    def ending(self) -> list[Event]:
        done = {"name": self._names["name"], "arguments": self.text}
        return [self._event("response.function_call_arguments.done", done)]


class CustomCallItem(CallItem):
    """A custom tool's call: its input is the one string among the arguments."""

    prefix = "ctc"

    def __init__(self, call_id: str, names: dict[str, Any]) -> None:
        super().__init__(call_id, names)
        self._input = _OneString()

    def shown(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": "custom_tool_call",
            "status": self.status,
            "call_id": self._call_id,
            **self._names,
            "input": self.text,
        }

    def grow(self, text: str) -> list[Event]:
        return self._more(self._input.feed(text))

    def ending(self) -> list[Event]:
        rest = self._more(self._input.rest())
        return [*rest, self._event("response.custom_tool_call_input.done", {"input": self.text})]

    def _more(self, text: str) -> list[Event]:
        if not text:
            return []
        self._parts.append(text)
        return [self._event("response.custom_tool_call_input.delta", {"delta": text})]


_HEAD = re.compile(r'\s*\{\s*"%s"\s*:\s*"' % CUSTOM_INPUT)  # noqa: UP031
_CERTAIN = re.compile(r'(?:[^"\\]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*')
_HALF = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}$")


class _OneString:
    """The text of `{"input": "..."}` while the JSON comes in; other arguments as they are."""

    def __init__(self) -> None:
        self._waiting = ""
        self._is_inside = False
        self._is_over = False

    def feed(self, fragment: str) -> str:
        """What became certain."""
        if self._is_over:
            return ""
        self._waiting += fragment
        if not self._is_inside:
            head = _HEAD.match(self._waiting)
            if head is None:
                return ""
            self._is_inside, self._waiting = True, self._waiting[head.end() :]
        found = _CERTAIN.match(self._waiting)
        assert found is not None  # it matches nothing at least
        text = _HALF.sub("", found[0])
        self._is_over = self._waiting[found.end() : found.end() + 1] == '"'
        text = found[0] if self._is_over else text
        self._waiting = self._waiting[len(text) :]
        decoded: str = json.loads(f'"{text}"', strict=False)
        return str(repaired(decoded))

    def rest(self) -> str:
        """At the end: arguments that have no such member."""
        return "" if self._is_inside else self._waiting
