"""What is an answer of the model: calls to make, the last word, or of no use?"""

import json
from enum import Enum
from typing import Any

from expertmesh.clients.chat import Reply

_SHOWN_CHARS = 500


class Kind(Enum):
    """What an answer is."""

    CALLS = "calls"
    FINAL = "final"
    CUT = "cut"
    """It ended too early. None of its calls may be made, not even those that look whole."""
    EMPTY = "empty"


def kind_of(reply: Reply) -> Kind:
    """Some servers end an answer with calls by `stop`; one that was cut has a call that is no
    whole JSON, or ends by anything else."""
    if reply.finish_reason in ("tool_calls", "function_call") and reply.tool_calls:
        return Kind.CALLS
    if reply.finish_reason not in ("stop", "tool_calls", "function_call"):
        return Kind.CUT
    if reply.tool_calls:
        whole = all(_is_json(one["function"]["arguments"] or "{}") for one in reply.tool_calls)
        return Kind.CALLS if whole else Kind.CUT
    return Kind.FINAL if answer_text(reply.content) else Kind.EMPTY


def assistant_message(reply: Reply, kind: Kind, step: int) -> dict[str, Any]:
    """The answer as the history keeps it, with its thinking.

    Calls that were not made are left out. Arguments that are not a JSON object would make servers
    refuse every later request, so they stand as text in one that is; so would two calls with one
    id, of which the second gets one of ours.
    """
    message = reply.as_message()
    message.pop("tool_calls", None)
    if kind is Kind.CALLS:
        message["tool_calls"] = [
            {
                "id": call_id,
                "type": "function",
                "function": {
                    "name": one["function"]["name"],
                    "arguments": _object_text(one["function"]["arguments"]),
                },
            }
            for one, call_id in zip(reply.tool_calls, _ids(reply.tool_calls, step), strict=True)
        ]
    return message


def _ids(calls: list[dict[str, Any]], step: int) -> list[str]:
    """Each once."""
    found: list[str] = []
    for number, one in enumerate(calls, 1):
        call_id = one["id"]
        while not call_id or call_id in found:
            call_id = f"call_{step}_{number}" if not call_id else f"{call_id}_{number}"
        found.append(call_id)
    return found


def answer_text(content: str) -> str:
    """Without the thinking that some servers leave at its beginning."""
    if content.lstrip().startswith("<think>") and "</think>" in content:
        content = content.partition("</think>")[2]
    return content.strip()


def _object_text(arguments: str) -> str:
    if not arguments.strip():
        return "{}"
    try:
        if isinstance(json.loads(arguments), dict):
            return arguments
    except (ValueError, RecursionError):
        pass  # it is kept as text below, and the registry explains what is wrong with it
    return json.dumps({"malformed": arguments[:_SHOWN_CHARS]}, ensure_ascii=False)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
