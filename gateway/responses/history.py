"""How do input items become the chat messages that the core renders?

What a model says in one answer comes back as several items: its thinking, its text, its calls.
Together they are one turn. As in the other APIs, what was said before the last answer is taken as
it comes, and what is asked now must be text.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gateway.errors import bad_field
from gateway.responses.earlier import NOTHING, Earlier
from gateway.responses.tools import CUSTOM_INPUT, flat_name
from gateway.text.prompt_encoder import field_error
from moe_model.chat.message_parts import asked_content

_ROLES = ("user", "assistant", "system", "developer")
_NOT_ARGUMENTS = ("type", "id", "call_id", "status", "caller")

Unseal = Callable[[str], str | None]
"""The thinking in an `encrypted_content`, None if it cannot be read."""


class ItemReader:
    """Reads the items of one request, in their order."""

    def __init__(self, unseal: Unseal, *, reads_all: bool = False):
        """`reads_all`: what is asked now may hold anything, too."""
        self._unseal = unseal
        self._reads_all = reads_all
        self._messages: list[dict[str, Any]] = []
        self._places: list[str] = []
        self._turn: dict[str, Any] | None = None
        """The assistant's turn that further items may belong to."""
        self.warnings: list[str] = []

    def read(
        self, instructions: str | None, given: Any, earlier: Earlier = NOTHING
    ) -> list[dict[str, Any]]:
        """Messages for the encoder. Raises RequestError naming the field."""
        if instructions is not None:
            self._add("instructions", {"role": "system", "content": instructions})
        for index, item in enumerate(earlier.items):
            self._item(f"{earlier.place}[{index}]", item)
        if isinstance(given, str):
            self._add("input", {"role": "user", "content": given})
        elif isinstance(given, list):
            for index, item in enumerate(given):
                self._item(f"input[{index}]", item)
        elif given is not None:
            raise bad_field("input", "must be a string or a list of items", "invalid_type")
        if not self._messages:
            raise bad_field("input", "must not be empty")
        if not self._reads_all:
            self._require_text()
        return self._messages

    def _add(self, place: str, message: dict[str, Any]) -> None:
        self._messages.append(message)
        self._places.append(place)
        self._turn = None

    def _item(self, place: str, item: Any) -> None:
        if not isinstance(item, dict):
            raise bad_field(place, "must be an object", "invalid_type")
        kind = item.get("type")
        if kind == "message" or (kind is None and "role" in item):
            self._message(place, item)
        elif kind == "reasoning":
            self._reasoning(place, item)
        elif kind == "item_reference" or (kind is None and "id" in item):
            raise bad_field(f"{place}.id", "must be the id of an item", "invalid_type")
        elif not isinstance(kind, str):
            raise bad_field(f"{place}.type", "must be a string", "invalid_type")
        elif kind.endswith("_call_output"):
            output = item.get("output", item.get("result"))
            message = {"role": "tool", "tool_call_id": item.get("call_id"), "content": output}
            self._add(place, message)
        elif kind.endswith("_call") and "call_id" in item:
            self._call(place, kind, item)
        else:
            self.warnings.append(f"{place}: items of type {kind!r:.80} are left out")

    def _message(self, place: str, item: Mapping[str, Any]) -> None:
        role, content = item.get("role"), item.get("content")
        if role not in _ROLES:
            raise bad_field(f"{place}.role", f"must be one of {', '.join(_ROLES)}, is {role!r:.40}")
        if role != "assistant":
            self._add(place, {"role": role, "content": content})
            return
        parts = [] if content is None else content if isinstance(content, list) else [content]
        self._open_turn(place)["content"] += parts

    def _reasoning(self, place: str, item: Mapping[str, Any]) -> None:
        """Thinking, in the first of its forms that says anything."""
        sealed = item.get("encrypted_content")
        thinking = _texts(item.get("content"))
        if not thinking and isinstance(sealed, str) and sealed:
            opened = self._unseal(sealed)
            if opened is None:
                self.warnings.append(
                    f"{place}.encrypted_content: cannot be read here, the thinking was left out"
                )
            thinking = opened or ""
        thinking = thinking or _texts(item.get("summary"))
        if thinking:
            part = {"type": "reasoning_text", "text": thinking}
            self._open_turn(place)["content"].append(part)

    def _call(self, place: str, kind: str, item: Mapping[str, Any]) -> None:
        if kind == "function_call":
            arguments = item.get("arguments")
        elif kind == "custom_tool_call":
            arguments = {CUSTOM_INPUT: item.get("input")}
        else:  # of a tool that another server ran, or that the client knows by itself
            arguments = {key: item[key] for key in item if key not in _NOT_ARGUMENTS}
        name = item.get("name", kind.removesuffix("_call"))
        function = {"name": flat_name(name, item.get("namespace")), "arguments": arguments}
        turn = self._turn if self._turn is not None else self._open_turn(place)
        call = {"id": item.get("call_id"), "type": "function", "function": function}
        turn.setdefault("tool_calls", []).append(call)

    def _open_turn(self, place: str) -> dict[str, Any]:
        """The turn that thinking or text goes to: after a text without calls, it is a new one."""
        turn = self._turn
        said = turn is not None and any(not _is_thinking(part) for part in turn["content"])
        if turn is None or (said and "tool_calls" not in turn):
            turn = {"role": "assistant", "content": []}
            self._add(place, turn)
            self._turn = turn
        return turn

    def _require_text(self) -> None:
        """Refuse what is asked now if the model cannot read it."""
        roles = [message["role"] for message in self._messages]
        last_answer = _last(("assistant", "tool"), roles)
        last_user = _last(("user",), roles)
        for index, (place, message) in enumerate(zip(self._places, self._messages, strict=True)):
            if index <= last_answer or (roles[index] == "user" and index != last_user):
                continue
            try:
                asked_content(place, message["content"])
            except ValueError as error:
                raise field_error(place, str(error)) from None


def _last(wanted: Sequence[str], roles: Sequence[str]) -> int:
    return max((i for i, role in enumerate(roles) if role in wanted), default=-1)


def _is_thinking(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "reasoning_text"


def _texts(parts: Any) -> str:
    """The texts of reasoning's content or summary, whatever else these hold."""
    if isinstance(parts, str):
        return parts
    known = [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    return "".join(part["text"] for part in known if isinstance(part.get("text"), str))
