"""How do Ollama's messages become those that the core renders?

Its calls have no ids, or such as the client made up. They are numbered within their turn, here and
in answers alike, so that a turn which comes back is known again.
"""

from collections.abc import Sequence
from typing import Any

from gateway.errors import unsupported
from gateway.generate.request import numbered_call


def chat_messages(messages: Sequence[Any], *, reads_all: bool) -> list[Any]:
    """Messages for the encoder. Raises RequestError for images in what is asked now.

    `reads_all`: these are read like those of the past, as a few words in their place.
    """
    roles = [one.get("role") if isinstance(one, dict) else None for one in messages]
    answered = max((i for i, role in enumerate(roles) if role in ("assistant", "tool")), default=-1)
    converted = []
    calls: list[_Call] = []
    for index, message in enumerate(messages):
        if isinstance(message, dict):
            if index > answered and message.get("images") and not reads_all:
                raise unsupported(f"messages[{index}].images", "this model reads text only")
            message = _with_images(message)
            if message.get("role") == "assistant":
                message, calls = _numbered(message)
            elif message.get("role") == "tool":
                message = _result(message, calls)
        converted.append(message)
    return converted


_Call = tuple[Any, Any, str]
"""The client's id of a call, its tool, and the number that it has here."""


def _with_images(message: dict[str, Any]) -> dict[str, Any]:
    plain = {key: value for key, value in message.items() if key != "images"}
    images = message.get("images")
    if not isinstance(images, list) or not images:
        return plain
    text = {"type": "text", "text": plain.get("content")}
    return {**plain, "content": [text, *({"type": "image"} for _ in images)]}


def _numbered(message: dict[str, Any]) -> tuple[dict[str, Any], list[_Call]]:
    given = message.get("tool_calls")
    if not isinstance(given, list):
        return message, []
    calls: list[_Call] = []
    numbered: list[Any] = []
    for index, call in enumerate(given):
        if isinstance(call, dict):
            function = call.get("function")
            tool = function.get("name") if isinstance(function, dict) else None
            calls.append((call.get("id"), tool, numbered_call(index)))
            call = {**call, "id": numbered_call(index)}
        numbered.append(call)
    return {**message, "tool_calls": numbered}, calls


def _result(message: dict[str, Any], calls: list[_Call]) -> dict[str, Any]:
    """With the number of its call: the one with its id, else the next of its tool, else the next.

    The call is taken from `calls`.
    """
    tool = message.get("tool_name") or message.get("name")
    given = message.get("tool_call_id")
    of_id = (call for call in calls if given is not None and call[0] == given)
    of_tool = (call for call in calls if tool is not None and call[1] == tool)
    call = next(of_id, None) or next(of_tool, None) or next(iter(calls), None)
    known = {key: value for key, value in message.items() if key != "tool_call_id"}
    if call is None:
        return {**known, "name": tool}
    calls.remove(call)
    return {**known, "tool_call_id": call[2]}
