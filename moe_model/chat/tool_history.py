"""How do the tool calls and tool results of earlier turns reach the template?

They are history, so nothing about them is an error. The format puts names between quotes and has
no escaping; therefore

- in a name of a tool or parameter, the characters that could end it (double quote, `<`, `>`,
  control characters) and lone surrogates are written as JSON writes them: `\\u0022`. So is a
  backslash that would read as the beginning of such an escape, so that different names stay
  different.
- a result whose call is gone, which the template refuses, gets a call of that tool without
  arguments before it: in a user's turn, a tool's text would carry the user's authority.
- arguments that are not a JSON object, and cannot be meant as one, become one parameter named
  `arguments` whose value is their text as it was sent.
"""

import re
from itertools import groupby
from typing import Any

from moe_model.chat.lossless_json import as_text, is_deeper, loads
from moe_model.chat.repairs import Repair, Repairs

RAW_PARAMETER = "arguments"

_UNKNOWN_TOOL = "unknown"
_MAX_ARGUMENT_DEPTH = 128
_MAX_ENCODINGS = 3
"""How often JSON text may itself be a JSON string of JSON text."""
_MAX_ITEMS = 200_000
"""Commas and opening brackets in a conversation's arguments: more would fill any context."""
_UNSAFE = re.compile(r'["<>\x00-\x1f\x7f\ud800-\udfff]|\\(?=u[0-9A-Fa-f]{4})')


class CallReader:
    """Reads the calls of one conversation, within bounds on the work that their JSON may cause."""

    def __init__(self, repairs: Repairs) -> None:
        """`repairs` counts what is not rendered as it was sent."""
        self._repairs = repairs
        self._items_left = _MAX_ITEMS

    def read(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        """An assistant's tool calls as the template takes them, arguments as mappings.

        Reads OpenAI's `tool_calls`, custom calls included, and the older `function_call`; also
        calls without the `function` around them.
        """
        calls = message.get("tool_calls")
        if not calls and isinstance(message.get("function_call"), dict):
            calls = [{"function": message["function_call"]}]
        if not calls:
            return []
        return [self._call(call) for call in (calls if isinstance(calls, list) else [calls])]

    def stand_in(self, result: dict[str, Any]) -> dict[str, Any]:
        """The call that a result without one must have had."""
        self._repairs[Repair.RESULT] += 1
        return self._call({"function": {"name": result.get("name") or _UNKNOWN_TOOL}})

    def _call(self, call: Any) -> dict[str, Any]:
        function = _function_of(call)
        if function is None:
            self._repairs[Repair.CALLS] += 1
            function = {"name": "", "arguments": call}
        arguments = function.get("arguments", function.get("input"))
        result: dict[str, Any] = {
            "type": "function",
            "function": {
                "name": self._name(function.get("name")),
                "arguments": self._arguments(arguments),
            },
        }
        if isinstance(call, dict) and isinstance(call.get("id"), str):
            result["id"] = call["id"]
        return result

    def _name(self, name: Any) -> str:
        safe = safe_name(as_text(name))
        self._repairs[Repair.NAME] += not safe or safe != name
        return safe

    def _arguments(self, arguments: Any) -> dict[str, Any]:
        """As a mapping with safe names; see the rules above."""
        value, is_plain = self._decoded(arguments)
        if not value and not isinstance(value, bool | int | float):
            return {}
        if not isinstance(value, dict) or is_deeper(value, _MAX_ARGUMENT_DEPTH):
            self._repairs[Repair.ARGUMENTS] += 1
            return {RAW_PARAMETER: as_text(arguments)}
        self._repairs[Repair.ARGUMENTS] += not is_plain
        return {self._name(key): item for key, item in value.items()}

    def _decoded(self, arguments: Any) -> tuple[Any, bool]:
        """The value of JSON text, and whether that was plain: encoded once and strictly valid."""
        value, is_plain = arguments, True
        for encoding in range(_MAX_ENCODINGS):
            if not isinstance(value, str) or not value.strip():
                break
            is_plain = is_plain and encoding == 0
            self._items_left -= sum(map(value.count, ",[{"))
            if self._items_left < 0:
                break
            try:
                value = loads(value)
            except ValueError:
                is_plain = False
                try:
                    value = loads(value, lenient=True)
                except ValueError:
                    break
        if isinstance(value, str) and not value.strip():
            value = None
        return value, is_plain


def order_tool_results(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put consecutive tool messages into the order of the calls that they answer.

    A run of tool messages is reordered only when every one of them has a `tool_call_id` and the
    last assistant message has exactly one call with that id; otherwise its order is kept. The
    ids themselves are dropped, since no template reads them.
    """
    ordered: list[dict[str, Any]] = []
    rank_of_id: dict[str, int] = {}
    for role, group in groupby(messages, key=lambda message: message["role"]):
        run = list(group)
        if role == "assistant":
            rank_of_id = _rank_of_id(run[-1].get("tool_calls", []))
        ordered.extend(_sorted_run(run, rank_of_id) if role == "tool" else run)
    return ordered


def safe_name(name: str) -> str:
    """The name as it can stand between double quotes; different names stay different."""
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", name)


def _function_of(call: Any) -> dict[str, Any] | None:
    if not isinstance(call, dict):
        return None
    bare = call if isinstance(call.get("name"), str) else None
    forms = (call.get("function"), call.get("custom"), bare)
    return next((form for form in forms if isinstance(form, dict)), None)


def _rank_of_id(calls: list[dict[str, Any]]) -> dict[str, int]:
    """Position of each call by id; empty when an id is missing or used twice."""
    ids = [call.get("id") for call in calls]
    ranks = {call_id: rank for rank, call_id in enumerate(ids) if call_id is not None}
    return ranks if len(ranks) == len(ids) else {}


def _sorted_run(run: list[dict[str, Any]], rank_of_id: dict[str, int]) -> list[dict[str, Any]]:
    ids = [message.get("tool_call_id") for message in run]
    if all(call_id in rank_of_id for call_id in ids) and len(set(ids)) == len(ids):
        run = sorted(run, key=lambda message: rank_of_id[message["tool_call_id"]])
    return [{"role": "tool", "content": message["content"]} for message in run]
